"""Configs that somebody else wrote."""

import sys

import pytest

from runs import put_in_place_of
from trevsnn.cli.main import main
from trevsnn.errors import RunError, UsageError
from trevsnn.run.config import parse_config
from trevsnn.run.load import load_run

BOMB = "\n".join(
    ["a0: &a0 [" + ",".join("x" * 9) + "]"]
    + [f"a{i}: &a{i} [" + ",".join([f"*a{i - 1}"] * 9) + "]" for i in range(1, 9)]
    + ["model: *a8"]
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB, "[" * 90_000, "model: other.yaml", "data: {class_path: planted.Evil}", "model: planted.Evil", "config: other.yaml",
        "model: {class_path: planted.Evil, init_args: {}}", "epochs: 1\nepochs: 2", "seed: !!python/name:os.system",
    ],
)  # fmt: skip
def test_a_config_that_never_ends_or_names_other_files_or_classes_is_refused(sent, tmp_path, monkeypatch, text):
    (tmp_path / "planted.py").write_text("raise SystemExit('the code of a stranger runs')")
    (tmp_path / "other.yaml").write_text("channels: [2, 2]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (sent / "config.yaml").write_text(text)
    with pytest.raises(RunError, match=r"config\.yaml is damaged"):
        load_run(sent, "last")
    (tmp_path / "given.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"given\.yaml"):
        parse_config(["--config", "given.yaml"])
    assert main(["train", "--config", "given.yaml"]) == 2
    assert "planted" not in sys.modules


@pytest.mark.parametrize("kind", ["link", "pipe", "large"])
def test_a_config_is_a_regular_file_of_its_size(sent, tmp_path, kind):
    put_in_place_of(sent / "config.yaml", kind, tmp_path / "outside")
    with pytest.raises(RunError, match=r"config\.yaml is damaged|is no run: it holds no config.yaml"):
        load_run(sent, "last")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data.workers", "1025"], "data.workers is 1025; it must be at most 1,024"),
        (["--model.timesteps", "4097"], "timesteps is 4097; it must be at most 4,096"),
        (["--model.channels", "[8,65537]"], r"channels\[1\] is 65537; it must be at most 65,536"),
        (["--model.channels", str([8] * 33)], "is 33; it must be at most 32"),
        (["--model.channels", str([8] * 16), "--model.timesteps", "4096"], "levels times timesteps is 65536; it must be at most 32,768"),
        (["--model.num_classes", "1048577"], "num_classes is 1048577; it must be at most 1,048,576"),
        (["--data.image_size", "16385"], "data.image_size is 16385; it must be at most 16,384"),
        (["--batch_size", "1048577"], "batch_size is 1048577; it must be at most 1,048,576"),
        (["--epochs", "100001"], "epochs is 100001; it must be at most 100,000"),
        (["--accumulate", "1048577"], "accumulate is 1048577; it must be at most"),
        (["--checkpoint_seconds", ".inf"], "checkpoint_seconds is inf"), (["--optim.lr", ".nan"], "optim.lr is nan"),
        (["--optim.clip", ".inf"], "optim.clip is inf"), (["--label_smoothing", ".nan"], "label_smoothing is nan"),
        (["--seed", str(2**32)], "seed is 4294967296; it must be at most"), (["--ema_decay", ".nan"], "ema_decay is nan"),
    ],
)  # fmt: skip
def test_numbers_are_bounded_by_what_a_machine_can_do(options, said):
    with pytest.raises(ValueError, match=said):
        parse_config(options)


def test_a_config_behind_a_circle_of_links_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UsageError, match=r"--config .*loop is .*link"):
        parse_config(["--config", str(tmp_path / "loop")])


def test_a_config_s_wrong_value_is_named(sent):
    text = (sent / "config.yaml").read_text()
    assert "epochs: 3" in text
    (sent / "config.yaml").write_text(text.replace("epochs: 3", "epochs: 3.5", 1))
    with pytest.raises(RunError, match=r"is damaged \(epochs is 3\.5; it must be a whole number\.\): mend it"):
        load_run(sent, "last")
