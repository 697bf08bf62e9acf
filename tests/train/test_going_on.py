"""Runs that go on with another number of epochs, or where their data lie now."""

import json
import math
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from helpers import assert_same, metrics
from runs import begin, unfinished
from trevsnn.cli.main import main
from trevsnn.errors import UsageError
from trevsnn.run.checkpoint import checkpoints
from trevsnn.run.config import OptimConfig, RunConfig
from trevsnn.run.folder import resume_command
from trevsnn.train.optim import rate_of_step
from trevsnn.train.train import resume

STEPS = 5


def rates(run: Path) -> list[float]:
    lines = (run / "steps.csv").read_text().splitlines()
    assert lines[0] == "step,epoch,loss,train_ce,lr,gradient_norm"
    return [float(line.split(",")[4]) for line in lines[1:]]


def test_longer_is_the_cosine_of_so_many_epochs_from_the_next_step_on(small_set, ended, tmp_path, capsys):
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


def test_longer_at_a_constant_rate_is_the_longer_run(small_set, tmp_path):
    constant = ["--optim.warmup_epochs", "0", "--optim.min_lr", "0.02", "--optim.lr", "0.02"]
    run = begin(small_set, tmp_path / "run", *constant)
    assert main(["train", "--resume", str(run), "--epochs", "3"]) == 0
    assert_same(begin(small_set, tmp_path / "whole", *constant, "--epochs", "3"), run)


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


def test_a_shorter_end(small_set, ended, tmp_path):
    """Of a run interrupted after its second epoch of four."""
    run = shutil.copytree(ended, tmp_path / "run")
    (run / "summary.json").unlink()
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("epochs: 2", "epochs: 4", 1))
    assert main(["train", "--resume", str(run), "--epochs", "2"]) == 0
    assert_same(ended, run)
    assert json.loads((run / "summary.json").read_text())["epochs"] == 2


def test_data_that_moved_are_followed(ended, small_set, tmp_path, capsys):
    shutil.copytree(small_set, tmp_path / "moved")
    run = shutil.copytree(ended, tmp_path / "run")
    options = ["--data.root", str(tmp_path / "moved"), "--data.workers", "1", "--accelerator", "auto"]
    assert main(["train", "--resume", str(run), "--epochs", "3", *options]) == 0
    assert "have changed" not in capsys.readouterr().out
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["root"] == str(tmp_path / "moved")
    assert f"after step 10: data.root {small_set} -> {tmp_path / 'moved'}" in (run / "config.yaml").read_text()


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


def test_relative_places_are_found_from_any_folder(small_set, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_set, tmp_path / "ds")
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


def test_a_run_may_be_named_in_bytes_that_are_no_utf_8(small_set, tmp_path, capsys):
    odd = tmp_path / "caf\udce9"
    shutil.copytree(small_set, odd / "ds")
    run = begin(odd / "ds", odd / "run", "--epochs", "1", "--optim.warmup_epochs", "0")
    assert json.loads((run / "summary.json").read_text())["config"]["data"]["root"] == str(odd / "ds")
    assert main(["train", "--resume", str(run), "--epochs", "2"]) == 0
    assert main(["evaluate", str(run), "--json", "--confusion", str(odd / "table.csv")]) == 0
    assert r"caf\udce9" in capsys.readouterr().out
    assert main(["export", str(run), "--out", str(odd / "out"), "--formats", "onnx", "int8", "onnx-int8"]) == 0
    for engine in ("eager", "onnx", "int8", "spikes"):
        assert main(["evaluate", str(odd / "out"), "--engine", engine]) == 0


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
