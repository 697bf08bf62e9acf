"""All mistakes of a command line at once."""

import pytest

from helpers import folder_of_pictures
from trevsnn.cli.main import main
from trevsnn.run.mistakes import all_mistakes, refusals
from trevsnn.run.options import Option, flatten, nest, split_options

OWN = {"run": True, "resume": True, "print_config": False}


def told(*arguments: str) -> list[str]:
    return all_mistakes(arguments, OWN)


def test_options_are_split_as_the_parser_reads_them():
    given = ["--epochs", "3", "--optim.lr=-1", "--print_config", "--batch_size", "-2", "x", "--run"]
    assert split_options(given, ["print_config"]) == [
        Option("epochs", "3"), Option("optim.lr", "-1"), Option("print_config", None), Option("batch_size", "-2"),
        Option("", "x"), Option("run", None),
    ]  # fmt: skip
    assert flatten(nest({"a": 1, "b.c": 2, "b.d": [3]})) == {"a": 1, "b.c": 2, "b.d": [3]}


def test_mistakes_of_every_kind_are_told_at_once(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("batchsize: 3\nmodel: {num_classes: 7, in_chans: 3, kernel_size: 2}\nprecision: bf16\noptim: 3\n")
    options = ["--config", str(file), "--lr", "0.1", "--optim.name", "muno", "--data.erasing", "2", "--epochs", "many"]
    assert told(*options, "--run", "x", "y", "--label_smoothing", "2", "--data.crop_padding") == [
        f"{file}: there is no option batchsize: did you mean batch_size?",
        f"{file}: precision is 'bf16'; it must be one of 32-true, bf16-mixed, 16-mixed, 64-true: did you mean bf16-mixed?",
        f"{file}: optim is 3; it must hold options, NAME: VALUE.",
        "there is no option --lr: did you mean --optim.lr?",
        "optim.name is 'muno'; it must be one of adamw, lamb, muon: did you mean muon?",
        "epochs is 'many'; it must be a whole number.",
        "'y' belongs to no option: options are --NAME VALUE.",
        "--data.crop_padding stands without a value: give it one.",
        "model.kernel_size is 2; it must be odd, so that maps keep their size.",
        "data.erasing is 2.0; it must lie in 0..1.",
        "label_smoothing is 2.0; it must lie in 0..1.",
        "model.num_classes is 7, but digits has 10: set it to 10.",
        "model.in_chans is 3, but digits are grey: set it to 1.",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--start", "derive"],
            "start is 'derive'; it must be one of derived, published, or null: did you mean derived?",
        ),
        (["--data.flip", "maybe"], "data.flip is 'maybe'; it must be true or false."),
        (["--ema_decay", "x"], "ema_decay is 'x'; it must be a number or null."),
        (["--model.channels", "8"], "model.channels is '8'; it must be a list of whole numbers, such as [64, 64]."),
        (["--data.sensor", "x"], "data.sensor is 'x'; it must be 2 whole numbers, such as [64, 64]."),
        (
            ["--data.crop_scale", "0.5"],
            "data.crop_scale is of data.crop resized, and does nothing with pad: leave it out, or set data.crop to resized.",
        ),
        (
            ["--data.crop", "resized", "--data.crop_padding", "1"],
            "data.crop_padding is of data.crop pad, and does nothing with resized: set it to 0, or data.crop to pad.",
        ),
        (["--nonsense", "3"], "there is no option --nonsense; trevsnn train --help lists all."),
        (["--model.num_clases", "3"], "there is no option --model.num_clases: did you mean --model.num_classes?"),
    ],
)
def test_one_mistake_is_one_sentence(arguments, sentence):
    assert told(*arguments) == [sentence]


def test_the_classes_of_recordings_are_counted_before_one_is_opened(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.csv").write_text("no table")
    options = ["--recipe", "n-mnist", "--data.name", "recordings", "--data.root", str(tmp_path)]
    assert told(*options) == ["model.num_classes is 10, but recordings has 3: set it to 3."]
    (tmp_path / "labels.csv").write_text("file,label\na/1.csv,left\nb/1.csv,right\nc/1.csv,left\n")
    assert told(*options) == ["model.num_classes is 10, but recordings has 2: set it to 2."]


def test_what_contradicts_is_told_once_and_defaults_are_not_blamed():
    values = {"data.name": "n-mnist", "data.crop": "resized", "data.auto_augment": "rand-m9", "data.workers": -1, "epochs": 1,
              "optim.warmup_epochs": 99, "model.input": "event", "model.encoding": "grouped"}  # fmt: skip
    config, sentences, about = refusals(values)
    assert [sentence.partition(" ")[0] for sentence in sentences] == [
        "model.encoding='grouped'", "data.workers", "data.crop", "data.auto_augment", "optim.warmup_epochs",
    ]  # fmt: skip
    assert config is not None
    assert config.data.name == "n-mnist"
    assert {"data.crop", "data.auto_augment", "optim.warmup_epochs", "epochs"} <= about
    assert refusals({"epochs": 3, "batch_size": 8})[1:] == ([], set())


def test_the_command_line_prints_a_line_for_each_and_exits_with_2(tmp_path, capsys):
    folder_of_pictures(tmp_path, ("cats",), n=4)
    options = [
        "--data.root",
        str(tmp_path / "cats"),
        "--model.num_classes",
        "3",
        "--batch_size",
        "50",
        "--data.grey",
        "true",
    ]
    assert main(["train", *options, "--model.in_chans", "3"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "trevsnn: error: 3 mistakes:",
        "  model.num_classes is 3, but folder has 2: set it to 2.",
        "  model.in_chans is 3, but folder are grey: set it to 1.",
        "  batch_size is 50, more than the 6 training items: lower it.",
    ]
    assert main(["train", *options, "--epochs", "0", "--data.root", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "trevsnn: error: 2 mistakes:",
        f"  {tmp_path / 'nowhere'} is no folder: set data.root to the folder that holds your pictures.",
        "  epochs is 0; it must be at least 1.",
    ]
