"""What can go wrong in the middle of a training: each ends in one sentence or goes on, and nothing saved is lost."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import assert_same, folder_of_pictures, metrics
from processes import start, start_two
from trevsnn.cli.main import main

SMALL = [
    "--model.channels", "[4,8]", "--model.timesteps", "1", "--epochs", "2", "--batch_size", "256", "--ema_decay", "0.9",
    "--optim.warmup_epochs", "1", "--accelerator", "cpu",
]  # fmt: skip


@pytest.mark.parametrize("most", [4, pytest.param(20, marks=pytest.mark.long)])
def test_kills_of_a_run_of_two_processes_change_nothing(tmp_path: Path, most: int):
    """kill -9 at random moments, of both processes or of one, which ends the other; then on to the end."""
    run, whole, output = tmp_path / "killed", tmp_path / "whole", tmp_path / "output"
    options = ["train", *SMALL, "--checkpoint_seconds", "0", "--batch_size", "64"]
    for process in start_two([*options, "--run", str(whole)], str(output)):
        process.join(300)
        assert process.exitcode == 0, output.read_text()
    dice = random.Random(0)
    kills, after = 0, 0
    while kills < most:
        begun = (run / "config.yaml").exists()
        processes = start_two(["train", "--resume", str(run)] if begun else [*options, "--run", str(run)])
        deadline = time.monotonic() + 120
        while not list((run / "checkpoints").glob(f"step-{after + 1:09d}*")) and time.monotonic() < deadline:
            assert all(process.is_alive() for process in processes)
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.05))
        victims = processes if dice.random() < 0.5 else [processes[dice.randrange(2)]]
        for process in victims:
            process.kill()
            kills += 1
        for process in processes:
            process.join(60)
            if process.is_alive():  # one that waits for the dead one, until its timeout
                process.kill()
                process.join()
        found = [p for p in (run / "checkpoints").glob("step-*") if p.is_dir()]
        after = max((int(p.name[5:]) for p in found), default=0)
        assert after < 44
    for process in start_two(["train", "--resume", str(run)], str(output)):
        process.join(300)
        assert process.exitcode == 0, output.read_text()
    assert_same(whole, run)
    rows = [metrics(r) for r in (whole, run)]
    assert [row["val_accuracy"] for row in rows[0]] == [row["val_accuracy"] for row in rows[1]]


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("a tmpfs can be mounted by root alone")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_said_and_what_was_saved_stays(small_disk: Path, tmp_path: Path, capsys):
    run = small_disk / "run"
    options = ["train", *SMALL, "--model.channels", "[4,8]"]
    assert main([*options, "--epochs", "2", "--run", str(tmp_path / "whole")]) == 0
    # Train one epoch, then fill the disk, then go on.
    assert main([*options, "--run", str(run)]) == 0
    (run / "summary.json").unlink()
    latest = max((run / "checkpoints").glob("step-*"))
    shutil.rmtree(latest)
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    before = {f: f.read_bytes() for f in (run / "checkpoints").rglob("*") if f.is_file()}
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot be written (No space left on device): make room, and go on" in error
    assert {f: f.read_bytes() for f in (run / "checkpoints").rglob("*") if f.is_file()} == before
    (small_disk / "ballast").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(tmp_path / "whole", run)


def started(options: list[str], run: Path) -> Any:
    """A training that has saved its first checkpoint and goes on; what it prints goes to a file beside the run."""
    process = start([*options, "--run", str(run)], run.with_suffix(".txt"))
    while not list((run / "checkpoints").glob("step-*")):
        assert process.is_alive()
        time.sleep(0.005)
    return process


def errors_of(process: Any, run: Path) -> list[str]:
    """What it says from its error on, line by line; it has to end with exit code 1."""
    process.join(100)
    printed = run.with_suffix(".txt").read_text()
    assert process.exitcode == 1, printed
    return printed[printed.index("trevsnn: error:") :].splitlines()


def test_a_data_folder_that_vanishes_is_said_and_the_run_goes_on_when_it_is_back(tmp_path: Path, capsys):
    folder_of_pictures(tmp_path / "data", ("train", "val"), n=40)
    options = [
        "train", *SMALL, "--data.name", "folder", "--data.root", str(tmp_path / "data"), "--batch_size", "8",
        "--model.num_classes", "2", "--model.in_chans", "3", "--checkpoint_seconds", "0",
    ]  # fmt: skip
    assert main([*options, "--run", str(tmp_path / "whole")]) == 0
    process = started(options, tmp_path / "run")
    (tmp_path / "data").rename(tmp_path / "gone")
    error = errors_of(process, tmp_path / "run")
    assert len(error) == 1
    assert "does not exist: has the data folder moved?" in error[0]
    assert main(["train", "--resume", str(tmp_path / "run")]) == 1
    assert "is no folder: set data.root to the folder that holds your pictures" in capsys.readouterr().err
    (tmp_path / "gone").rename(tmp_path / "data")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_training_data_that_changed_meanwhile_are_said(tmp_path: Path, capsys):
    folder_of_pictures(tmp_path / "data", ("train", "val"), n=40)
    options = [
        "train", *SMALL, "--data.name", "folder", "--data.root", str(tmp_path / "data"), "--batch_size", "8",
        "--model.num_classes", "2", "--model.in_chans", "3", "--run", str(tmp_path / "run"),
    ]  # fmt: skip
    assert main(options) == 0

    def go_on() -> int:
        (tmp_path / "run" / "summary.json").unlink()
        return main(["train", "--resume", str(tmp_path / "run")])

    assert go_on() == 0
    assert "have changed" not in capsys.readouterr().out
    first, *others = sorted((tmp_path / "data" / "train" / "cat").iterdir())
    first.rename(first.with_name("other.png"))
    assert go_on() == 0
    assert "warning: the training data have changed since the run was saved" in capsys.readouterr().out
    for picture in others[:8]:
        picture.unlink()
    assert go_on() == 1
    assert re.search(
        r"the training data make \d steps an epoch, but made \d+ when the run was saved: put them, or the batch_size, back as they were",
        capsys.readouterr().err,
    )


def test_a_loading_process_that_is_killed_is_said_and_the_run_goes_on(tmp_path: Path):
    options = ["train", *SMALL, "--checkpoint_seconds", "0", "--data.workers", "1", "--batch_size", "128"]
    assert main([*options, "--run", str(tmp_path / "whole")]) == 0
    process = started(options, tmp_path / "run")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(c) for c in children if "resource_tracker" not in Path(f"/proc/{c}/cmdline").read_text()]
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    error = errors_of(process, tmp_path / "run")
    # PyTorch's own handler may notice the death once more while the process ends, and print that after the sentence.
    assert error[0].startswith("trevsnn: error: a loading process died")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_steps_with_a_gradient_that_is_not_finite_are_skipped_and_counted(tmp_path: Path, monkeypatch):
    from trevsnn.data.loading import TensorDataset

    plain = TensorDataset.__getitem__

    def with_nan(self, key):
        tensor, label, unreadable = plain(self, key)
        return (torch.full_like(tensor, torch.nan) if self.training and key == (0, 7) else tensor), label, unreadable

    monkeypatch.setattr(TensorDataset, "__getitem__", with_nan)
    assert main(["train", *SMALL, "--run", str(tmp_path / "run")]) == 0
    rows = metrics(tmp_path / "run")
    assert [row["skipped_steps"] for row in rows] == ["1", "0"]
    assert all(np.isfinite(float(row["train_loss"])) and np.isfinite(float(row["val_loss"])) for row in rows)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["skipped_steps"] == 1


def test_training_stops_where_gradients_stay_nan(tmp_path: Path, monkeypatch, capsys):
    from trevsnn.data.loading import TensorDataset

    plain = TensorDataset.__getitem__
    monkeypatch.setattr(TensorDataset, "__getitem__", lambda self, key: (plain(self, key)[0] * torch.nan, 1, -1))
    assert main(["train", *SMALL, "--run", str(tmp_path / "run"), "--max_nonfinite", "3"]) == 1
    assert "the gradient was not finite in 3 steps one after the other" in capsys.readouterr().err
