"""Runs that go on with another number of epochs, or where their data lie now."""

import json
import math
import shlex
import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml
from rich.console import Console

from helpers import assert_same, folder_of_pictures, metrics, picture
from trevsnn.cli.main import main
from trevsnn.errors import UsageError
from trevsnn.network.size import HEADER
from trevsnn.run.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from trevsnn.run.config import OptimConfig, RunConfig
from trevsnn.run.folder import resume_command
from trevsnn.train.optim import rate_of_step
from trevsnn.train.train import resume

STEPS = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    folder_of_pictures(root, ("train", "val"))
    return root


def begin(data: Path, run: Path, *options: str) -> Path:
    arguments = [
        "train", "--model.channels", "[2,4]", "--model.timesteps", "1", "--model.num_classes", "2", "--model.in_chans", "3",
        "--data.name", "folder", "--data.root", str(data), "--data.image_size", "8", "--batch_size", "8", "--epochs", "2",
        "--optim.warmup_epochs", "0.4", "--accelerator", "cpu", "--run", str(run), *options,
    ]  # fmt: skip
    assert main(arguments) == 0
    return run


@pytest.fixture(scope="module")
def ended(data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, not to be changed."""
    return begin(data, tmp_path_factory.mktemp("ended") / "run")


def rates(run: Path) -> list[float]:
    lines = (run / "steps.csv").read_text().splitlines()
    assert lines[0] == "step,epoch,loss,train_ce,lr,gradient_norm"
    return [float(line.split(",")[4]) for line in lines[1:]]


def test_longer_is_the_cosine_of_so_many_epochs_from_the_next_step_on(data, ended, tmp_path, capsys):
    run, config = tmp_path / "run", tmp_path / "by_hand"
    for copy in (run, config):
        shutil.copytree(ended, copy)
    before = json.loads((run / "summary.json").read_text())
    capsys.readouterr()
    assert main(["train", "--resume", str(run), "--epochs", "4"]) == 0
    short, long = (
        [rate_of_step(RunConfig(epochs=n, optim=OptimConfig(**before["config"]["optim"])), s, STEPS) for s in range(20)]
        for n in (2, 4)
    )
    assert rates(run) == pytest.approx([*short[:10], *long[10:]], rel=1e-12)
    said = f"4 epochs instead of 2: from step 11 on the learning rate is that of a cosine over 4 epochs, {long[10]:.3g} instead of {short[10]:.3g}"
    assert said in capsys.readouterr().out
    summary = json.loads((run / "summary.json").read_text())
    note = f"after step 10: epochs 2 -> 4; the learning rate of step 11 is {long[10]:.3g} instead of {short[10]:.3g}"
    assert (summary["epochs"], summary["changes"], before["changes"]) == (4, [note], [])
    assert (run / "config.yaml").read_text().startswith(f"# {note}\n")
    assert yaml.safe_load((run / "config.yaml").read_text()) == {**before["config"], "epochs": 4} == summary["config"]
    assert metrics(run)[:2] == metrics(ended)
    # The slow twin: config.yaml changed by hand.
    (config / "config.yaml").write_text((config / "config.yaml").read_text().replace("epochs: 2", "epochs: 4", 1))
    assert main(["train", "--resume", str(config)]) == 0
    assert_same(config, run)


def test_longer_at_a_constant_rate_is_the_longer_run(data, tmp_path):
    constant = ["--optim.warmup_epochs", "0", "--optim.min_lr", "0.02", "--optim.lr", "0.02"]
    run = begin(data, tmp_path / "run", *constant)
    assert main(["train", "--resume", str(run), "--epochs", "3"]) == 0
    assert_same(begin(data, tmp_path / "whole", *constant, "--epochs", "3"), run)


def test_an_ended_run_says_so_and_is_left_alone(ended, capsys):
    before = {file: file.stat().st_mtime_ns for file in ended.rglob("*")}
    capsys.readouterr()
    assert main(["train", "--resume", str(ended)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{ended} has ended already, after 2 epochs, with accuracy ")
    assert out.endswith(f"%: train it longer with trevsnn train --resume {ended} --epochs N\n")
    assert {file: file.stat().st_mtime_ns for file in ended.rglob("*")} == before
    assert resume(ended, Console(quiet=True))["epochs"] == 2


def test_an_ended_run_that_lost_its_last_checkpoint_makes_it_again(ended, tmp_path, capsys):
    """Without any, which somebody may have removed for their room, it has ended as it says."""
    run = Path(shutil.copytree(ended, tmp_path / "run"))
    shutil.rmtree(checkpoints(run / "checkpoints", "step")[0])
    assert main(["train", "--resume", str(run)]) == 0
    assert "has ended already" not in capsys.readouterr().out
    assert_same(ended, run)
    for left in checkpoints(run / "checkpoints", "step"):
        shutil.rmtree(left)
    assert main(["train", "--resume", str(run)]) == 0
    assert "has ended already" in " ".join(capsys.readouterr().out.split())


def test_fewer_epochs_than_are_done_are_refused(ended, tmp_path, capsys):
    run = shutil.copytree(ended, tmp_path / "run")
    assert main(["train", "--resume", str(run), "--epochs", "1"]) == 2
    assert "epochs is 1, but the run is in epoch 2 already: give 2 at least" in capsys.readouterr().err
    assert (run / "config.yaml").read_bytes() == (ended / "config.yaml").read_bytes()


def test_a_shorter_end(data, ended, tmp_path):
    """Of a run interrupted after its second epoch of four."""
    run = shutil.copytree(ended, tmp_path / "run")
    (run / "summary.json").unlink()
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("epochs: 2", "epochs: 4", 1))
    assert main(["train", "--resume", str(run), "--epochs", "2"]) == 0
    assert_same(ended, run)
    assert json.loads((run / "summary.json").read_text())["epochs"] == 2


def test_data_that_moved_are_followed(ended, data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "moved")
    run = shutil.copytree(ended, tmp_path / "run")
    options = ["--data.root", str(tmp_path / "moved"), "--data.workers", "1", "--accelerator", "auto"]
    assert main(["train", "--resume", str(run), "--epochs", "3", *options]) == 0
    assert "have changed" not in capsys.readouterr().out
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["root"] == str(tmp_path / "moved")
    assert f"after step 10: data.root {data} -> {tmp_path / 'moved'}" in (run / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch_size", "4"], "only --epochs, --data.root, --data.cache, --data.workers, --accelerator can change: leave out --batch_size"),
        (["--data.flip", "true"], "leave out --data.flip"),
        (["--recipe", "digits"], "goes on with the run's own config: leave out --recipe"),
        (["--epochs", "0"], "epochs is 0; it must be at least 1"),
    ],
)  # fmt: skip
def test_other_options_are_refused(ended, capsys, options, message):
    assert main(["train", "--resume", str(ended), *options]) == 2
    assert message in capsys.readouterr().err


def test_from_python_too(ended):
    with pytest.raises(UsageError, match=r"leave out --optim\.lr"):
        resume(ended, Console(quiet=True), changes={"optim.lr": 1.0})


def test_the_rate_of_a_step_is_that_of_the_formula():
    config = RunConfig(epochs=3, optim=OptimConfig(lr=0.5, lr_per=32, warmup_epochs=1, warmup_lr=0.1, min_lr=0.01))
    for step in range(12):
        expected = 0.1 + 0.4 * step / 4 if step < 4 else 0.01 + 0.49 * (1 + math.cos(math.pi * (step - 4) / 8)) / 2
        assert rate_of_step(config, step, 4) == pytest.approx(2 * expected, rel=1e-9)


def unfinished(ended: Path, to: Path) -> Path:
    """A copy of the run, without its last epoch."""
    shutil.copytree(ended, to)
    (to / "summary.json").unlink()
    shutil.rmtree(max((to / "checkpoints").glob("step-*")))
    return to


def test_what_was_changed_by_hand_is_said_and_written_down_once(ended, tmp_path, capsys):
    run = unfinished(ended, tmp_path / "run")
    file = run / "config.yaml"
    plain = yaml.safe_load(file.read_text())
    decay = plain["optim"]["weight_decay"]
    plain["optim"]["weight_decay"] = 0.5
    file.write_text(yaml.safe_dump(plain))
    assert main(["train", "--resume", str(run)]) == 0
    assert (
        f"warning: optim.weight_decay {decay} -> 0.5 since the run was saved: it goes on, but not to"
        in capsys.readouterr().out
    )
    note = f"after step 5: optim.weight_decay {decay} -> 0.5, by hand"
    assert json.loads((run / "summary.json").read_text())["changes"] == [note]
    assert file.read_text().count(note) == 1


def test_a_run_goes_on_with_options_that_do_nothing_and_a_new_one_does_not_begin_with_them(ended, tmp_path, capsys):
    """Earlier versions took them."""
    run = unfinished(ended, tmp_path / "run")
    plain = yaml.safe_load((run / "config.yaml").read_text())
    assert plain["data"]["crop"] == "pad"
    plain["data"]["crop_scale"] = 0.5
    (run / "config.yaml").write_text(yaml.safe_dump(plain))
    new = tmp_path / "new"
    assert main(["train", "--config", str(run / "config.yaml"), "--run", str(new)]) == 2
    assert "data.crop_scale is of data.crop resized, and does nothing with pad" in capsys.readouterr().err
    assert not new.exists()
    assert main(["train", "--resume", str(run)]) == 0


def test_versions_processes_and_held_out_items_that_changed_are_said(ended, data, tmp_path, capsys):
    run = unfinished(ended, tmp_path / "run")
    checkpoint = checkpoints(run / "checkpoints", "step")[0]
    weights, state = load_checkpoint(checkpoint)
    state["origin"]["versions"]["timm"] = "0.1"
    save_checkpoint(checkpoint, weights, state | {"origin": state["origin"] | {"processes": 4}})
    fewer = shutil.copytree(data, tmp_path / "fewer")
    (fewer / "val" / "cat" / "000.png").unlink()
    assert main(["train", "--resume", str(run), "--data.root", str(fewer)]) == 0
    out = capsys.readouterr().out
    assert f"since the run was saved: processes 4 -> 1, timm 0.1 -> {timm.__version__}; weights may differ" in out
    assert "warning: the held-out data have changed since the run was saved" in out
    assert "the training data have changed" not in out
    assert len(list(run.glob("checkpoints/step-*"))) == 2


def test_relative_places_are_found_from_any_folder(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data, tmp_path / "ds")
    begin(Path("ds"), Path("run"), "--data.cache", "cache")
    assert f"in {tmp_path / 'ds'}" in capsys.readouterr().out
    plain = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]
    assert (plain["root"], plain["cache"]) == (str(tmp_path / "ds"), str(tmp_path / "cache"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["evaluate", "../run"]) == 0
    assert main(["train", "--resume", "../run", "--epochs", "3"]) == 0
    shutil.move(tmp_path / "ds", tmp_path / "moved")
    assert main(["train", "--resume", "../run", "--epochs", "4", "--data.root", "../moved"]) == 0
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["root"]
    assert Path(written).resolve() == tmp_path / "moved"
    assert Path(written).is_absolute()


def test_commands_in_messages_can_be_pasted_and_names_stand_as_they_are(ended, tmp_path, capsys):
    run = unfinished(ended, tmp_path / "my  run [1] 'a'")
    shutil.rmtree(run / "checkpoints")
    assert main(["evaluate", str(run)]) == 1
    said = capsys.readouterr().err
    command = said.partition("trevsnn train --resume ")[2].rstrip().removesuffix(".")
    assert shlex.split(command) == [str(run)]
    assert main(["train", "--run", str(run)]) == 2
    assert f"{run} exists already" in capsys.readouterr().err
    assert resume_command(Path("-x")) == "trevsnn train --resume ./-x"


def test_a_run_may_be_named_in_bytes_that_are_no_utf_8(data, tmp_path, capsys):
    odd = tmp_path / "caf\udce9"
    shutil.copytree(data, odd / "ds")
    run = begin(odd / "ds", odd / "run", "--epochs", "1", "--optim.warmup_epochs", "0")
    assert json.loads((run / "summary.json").read_text())["config"]["data"]["root"] == str(odd / "ds")
    assert main(["train", "--resume", str(run), "--epochs", "2"]) == 0
    assert main(["evaluate", str(run), "--json", "--confusion", str(odd / "table.csv")]) == 0
    assert r"caf\udce9" in capsys.readouterr().out
    assert main(["export", str(run), "--out", str(odd / "out")]) == 0
    for engine in ("eager", "onnx", "int8", "spikes"):
        assert main(["evaluate", str(odd / "out"), "--engine", engine]) == 0


def change_by_hand(run: Path, old: str, new: str) -> None:
    file = run / "config.yaml"
    assert file.read_text().count(old) >= 1
    file.write_text(file.read_text().replace(old, new, 1))


@pytest.mark.parametrize("large", [False, True])
def test_a_network_changed_by_hand_is_refused_and_its_checkpoints_stay(ended, tmp_path, capsys, large):
    """However large its weights are: those of a larger network than the config's are not read."""
    run = unfinished(ended, tmp_path / "run")
    checkpoint = checkpoints(run / "checkpoints", "step")[0]
    if large:
        _, state = load_checkpoint(checkpoint)
        save_checkpoint(checkpoint, {"model": {"weight": torch.zeros(HEADER // 4)}}, state)
    change_by_hand(run, "- 2\n  - 4", "- 2\n  - 6")
    before = sorted(run.rglob("*"))
    assert main(["train", "--resume", str(run)]) == 1
    out, error = capsys.readouterr()
    expected = "is of another network than config.yaml describes (model.channels [2, 4] -> [2, 6]): put these back"
    assert expected in error
    assert "it goes on" not in out
    assert sorted(run.rglob("*")) == before


def test_how_a_network_is_computed_may_change(ended, tmp_path, capsys):
    run = unfinished(ended, tmp_path / "run")
    change_by_hand(run, "backprop: exact", "backprop: autograd")
    assert main(["train", "--resume", str(run)]) == 0
    assert "warning: model.backprop exact -> autograd since the run was saved" in capsys.readouterr().out


def test_another_optimizer_is_refused_by_its_name(ended, tmp_path, capsys):
    run = unfinished(ended, tmp_path / "run")
    change_by_hand(run, "name: muon", "name: adamw")
    assert main(["train", "--resume", str(run)]) == 1
    out, error = capsys.readouterr()
    assert "does not fit config.yaml, in which was changed: optim.name muon -> adamw: put these back" in error
    assert "it goes on" not in out


def test_classes_that_were_renamed_are_refused(ended, data, tmp_path, capsys):
    """As many of as many pictures: the outputs of the network would stand for others."""
    run = unfinished(ended, tmp_path / "run")
    renamed = shutil.copytree(data, tmp_path / "renamed")
    for part in ("train", "val"):
        (renamed / part / "cat").rename(renamed / part / "zebra")
    assert main(["train", "--resume", str(run), "--data.root", str(renamed)]) == 1
    expected = "other classes than when the run was saved: cat -> dog, dog -> zebra, in their order: put the data back"
    assert expected in capsys.readouterr().err


def test_the_best_epoch_of_a_run_that_went_back_is_none_of_before(ended, tmp_path):
    run = unfinished(ended, tmp_path / "run")
    best = checkpoints(run / "checkpoints", "best")[0]
    shutil.copytree(
        best, best.with_name("best-000009")
    )  # of a later epoch, which is made again, and comes out otherwise
    assert main(["train", "--resume", str(run)]) == 0
    number = json.loads((run / "summary.json").read_text())["best_epoch"]
    assert [path.name for path in checkpoints(run / "checkpoints", "best")] == [f"best-{number:06d}"]


def test_a_checkpoint_under_the_name_of_another_step_is_not_taken(ended, tmp_path, capsys):
    run = shutil.copytree(ended, tmp_path / "run")
    latest = checkpoints(run / "checkpoints", "step")[0]
    latest.rename(latest.with_name("step-000000400"))
    assert main(["train", "--resume", str(run)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "step-000000400 is damaged (it is of step 10): remove it" in out
    assert "going on from step-000000005" in out


def test_an_ended_run_whose_config_was_changed_by_hand_says_that_nothing_is_trained_with_it(ended, tmp_path, capsys):
    run = shutil.copytree(ended, tmp_path / "run")
    change_by_hand(run, "batch_size: 8", "batch_size: 4")
    assert main(["train", "--resume", str(run)]) == 0
    out = capsys.readouterr().out
    assert "warning: batch_size 8 -> 4 in config.yaml since the run ended: nothing is trained with that" in out
    assert "has ended already" in out


def test_a_value_of_a_config_that_is_none_is_named_with_what_it_must_be(ended, tmp_path, capsys):
    run = shutil.copytree(ended, tmp_path / "run")
    change_by_hand(run, "seed: 0", "seed: none")
    assert main(["train", "--resume", str(run)]) == 1
    assert "config.yaml is damaged (seed is 'none'; it must be a whole number.)" in capsys.readouterr().err


@pytest.mark.parametrize(("part", "said"), [("train", "the training data have"), ("val", "the held-out data have")])
def test_a_picture_replaced_by_another_of_its_name_is_said(ended, data, tmp_path, capsys, part, said):
    run = unfinished(ended, tmp_path / "run")
    moved = shutil.copytree(data, tmp_path / "moved")
    picture(7, (40, 40)).save(moved / part / "cat" / "000.png")
    assert main(["train", "--resume", str(run), "--data.root", str(moved)]) == 0
    out = capsys.readouterr().out
    assert f"warning: {said} changed since the run was saved" in out
    assert out.count("have changed") == 1


def test_an_export_is_no_run_to_go_on_with(ended, tmp_path, capsys):
    exported = shutil.copytree(
        ended, tmp_path / "exported", ignore=shutil.ignore_patterns("checkpoints", "summary.json")
    )
    (exported / "about.json").write_text("{}")
    before = sorted(exported.rglob("*"))
    assert main(["train", "--resume", str(exported)]) == 1
    assert f"{exported} is an export, which holds nothing to go on from" in capsys.readouterr().err
    assert sorted(exported.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--resume", ""], "--resume"),
        (["train", "--run", ""], "--run"),
        (["evaluate", ""], "run"),
        (["train", "--data.root", ""], "data.root"),
        (["evaluate", "digits", "--data.root", ""], "data.root"),
    ],
)
def test_an_empty_text_is_not_the_working_folder(tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert named in error
    assert "an empty text" in error


def test_checkpoints_that_are_no_folder(ended, tmp_path, capsys):
    run = unfinished(ended, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").touch()
    assert main(["train", "--resume", str(run)]) == 1
    assert f"the folder {run / 'checkpoints'} cannot be made (File exists)" in capsys.readouterr().err
