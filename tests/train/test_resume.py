"""Interrupted trainings go on to the same weights, bit for bit."""

import json
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers import SMALL, TINY_FLOAT16, assert_same, folder_of_pictures, metrics, train
from processes import start
from runs import begin
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.sets import load
from trevsnn.run.checkpoint import load_checkpoint


def test_killed_and_resumed_equals_uninterrupted(trained, device, tmp_path):
    """kill -9 at arbitrary moments of a run that saves after every step: most of them hit the writing."""
    run = tmp_path / "killed"
    options = ["--slope_epochs", "2", "--checkpoint_seconds", "0", "--accelerator", device.type]
    process = start(["train", *SMALL, *options, "--run", str(run)])
    dice = random.Random(0)
    for after in (2, 17):
        deadline = time.monotonic() + 120
        steps = run / "checkpoints"
        while not any(int(p.name[5:]) >= after for p in steps.glob("step-*") if p.is_dir()):
            assert process.is_alive(), "ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.2))
        process.kill()
        process.join()
        if after == 2:
            process = start(["train", "--resume", str(run)])
    assert not (run / "summary.json").exists()
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(trained, run)
    ours, theirs = (json.loads((r / "summary.json").read_text()) for r in (run, trained))
    for name in ("last_accuracy", "best_accuracy", "best_epoch", "steps", "firing_rates"):
        assert ours[name] == theirs[name]
    best = [load_file(max((r / "checkpoints").glob("best-*")) / "model.safetensors") for r in (run, trained)]
    assert all(torch.equal(tensor, best[1][name]) for name, tensor in best[0].items())


def scaler_of(checkpoint: Path) -> dict[str, float]:
    return load_checkpoint(checkpoint)[1]["scaler"]


def test_a_killed_run_in_float16_goes_on_with_its_loss_scale(device, tmp_path):
    """In the middle of an epoch, after the scale was found."""
    folder_of_pictures(tmp_path / "data", ("train", "val"))
    options = [
        *TINY_FLOAT16, "--data.root", str(tmp_path / "data"), "--epochs", "4", "--ema_decay", "0.9", "--accelerator",
        device.type, "--checkpoint_seconds", "0",
    ]  # fmt: skip
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert main([*options, "--run", str(whole)]) == 0
    process = start([*options, "--run", str(run)])
    deadline = time.monotonic() + 120
    while not list((run / "checkpoints").glob("step-00000001[2-9]")):
        assert process.is_alive(), "ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.join()
    before = scaler_of(max(p for p in (run / "checkpoints").glob("step-*") if p.is_dir()))
    assert before["scale"] < 65536
    assert before["_growth_tracker"] > 0
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(whole, run)
    after, expected = (scaler_of(max((r / "checkpoints").glob("step-*"))) for r in (run, whole))
    assert after == expected != before


@pytest.fixture(scope="module")
def three_epochs(small_set: Path, device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs of five steps, not to be changed."""
    run = tmp_path_factory.mktemp("three") / "run"
    return begin(small_set, run, "--epochs", "3", "--accelerator", device.type, "--ema_decay", "0.9")


def unfinish(run: Path, copy: Path, *, keep: int = 2) -> Path:
    """A copy of a run as it stood before its last epoch's checkpoint."""
    shutil.copytree(run, copy)
    (copy / "summary.json").unlink()
    for folder in sorted((copy / "checkpoints").glob("step-*"))[keep:]:
        shutil.rmtree(folder)
    return copy


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "all"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_used(three_epochs, tmp_path, capsys, damage):
    run = unfinish(three_epochs, tmp_path / "damaged")
    earlier, latest = sorted((run / "checkpoints").glob("step-*"))
    file = latest / "model.safetensors"
    if damage == "flip":
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(file.read_bytes()[:1000])
    elif damage == "remove":
        file.unlink()
    else:
        (latest / "manifest.json").write_text("{")
    if damage == "all":
        (earlier / "manifest.json").write_text("{}")
    assert main(["train", "--resume", str(run)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{latest.name} is damaged" in printed
    assert ("no intact checkpoint" if damage == "all" else f"going on from {earlier.name}") in printed
    assert_same(three_epochs, run)


def test_an_interrupted_writing_leaves_nothing_behind(three_epochs, tmp_path):
    run = unfinish(three_epochs, tmp_path / "half", keep=1)
    half = run / "checkpoints" / ".trevsnn-0123456789abcdef.part"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert main(["train", "--resume", str(run)]) == 0
    assert not half.exists()
    assert_same(three_epochs, run)


def test_resuming_before_the_first_checkpoint_begins_anew(three_epochs, tmp_path, capsys):
    run = unfinish(three_epochs, tmp_path / "none", keep=0)
    assert main(["train", "--resume", str(run)]) == 0
    assert "starting from the beginning" in capsys.readouterr().out
    assert_same(three_epochs, run)


def test_resuming_a_finished_run_changes_nothing(three_epochs, tmp_path):
    run = tmp_path / "done"
    shutil.copytree(three_epochs, run)
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(three_epochs, run)
    accuracies = [json.loads((r / "summary.json").read_text())["last_accuracy"] for r in (run, three_epochs)]
    assert accuracies[0] == accuracies[1]


@pytest.mark.parametrize(("optimizer", "lr"), [("muon", "0.02"), ("adamw", "0.01"), ("lamb", "0.02")])
def test_every_optimizer_trains_and_resumes(device, tmp_path, optimizer, lr):
    """AdamW in one pass reads weights and moments by address: moments in another memory format go to other weights."""
    whole = tmp_path / "whole"
    train(
        "--run",
        str(whole),
        "--optim.name",
        optimizer,
        "--optim.lr",
        lr,
        "--batch_size",
        "256",
        "--model.timesteps",
        "2",
        accelerator=device.type,
    )
    loss = [float(row["train_loss"]) for row in metrics(whole)]
    assert loss[2] < loss[0]
    run = unfinish(whole, tmp_path / "resumed", keep=1)
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(whole, run)


def test_pictures_augmented_on_the_device_resume_in_the_middle_of_an_epoch(device, tmp_path):
    whole = tmp_path / "whole"
    options = [
        "--data.on_device", "true", "--data.crop_padding", "1", "--data.rotation", "10", "--data.shear", "5",
        "--data.erasing", "0.5", "--data.mixup", "0.2", "--checkpoint_seconds", "0",
        "--batch_size", "512", "--epochs", "2", "--model.timesteps", "2",
    ]  # fmt: skip
    train("--run", str(whole), *options, accelerator=device.type)
    run = unfinish(whole, tmp_path / "resumed", keep=1)
    (left,) = (run / "checkpoints").glob("step-*")
    assert int(left.name[5:]) % (len(load(DataConfig(), "train", 1)) // 512) != 0
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(whole, run)
