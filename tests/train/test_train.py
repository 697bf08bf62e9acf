"""Training on real digits, through the command line."""

import json
import multiprocessing

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers import assert_same, final_weights, metrics, train
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.run.config import OptimConfig, RunConfig
from trevsnn.train.train import train as train_run


def test_a_run_folder_holds_everything(trained, device):
    summary = json.loads((trained / "summary.json").read_text())
    rows = metrics(trained)
    accuracies = [float(row["val_accuracy"]) for row in rows]
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert summary["last_accuracy"] == accuracies[-1]
    assert summary["best_accuracy"] == max(accuracies)
    assert summary["parameters"] == sum(
        t.numel() for n, t in final_weights(trained).items()
        if n.startswith("model.safetensors/") and not n.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )  # fmt: skip
    assert summary["items"] == {"train": 1437, "val": 360}
    assert len(summary["firing_rates"]) == 2
    assert all(0.01 < rate < 0.99 for rate in summary["firing_rates"])
    assert [len(row) for row in summary["hidden_rates"]] == [2, 2]
    assert summary["hidden_rates"][1][0] == float(rows[-1]["rate_hidden1_1"])
    assert all(0.001 < rate < 0.99 for row in summary["hidden_rates"] for rate in row)
    assert summary["seconds"] > 0
    on_cuda = device.type == "cuda"
    assert summary["peak_memory_of"] == ("tensors on the device" if on_cuda else "process")
    assert summary["peak_memory_bytes"] > (1e6 if on_cuda else 50e6)  # two hidden maps of a batch
    assert summary["device"].startswith(device.type)
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config == summary["config"]
    assert config["model"]["channels"] == [4, 8]
    assert config["optim"]["lr"] == 0.02  # of the recipe
    with Image.open(trained / "curves.png") as picture:
        assert picture.format == "PNG"
        assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 20
    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    assert [round(e.value, 6) for e in events.Scalars("val_accuracy")] == [round(a, 6) for a in accuracies]
    assert len(list((trained / "checkpoints").glob("step-*"))) == 2
    assert len(list((trained / "checkpoints").glob("best-*"))) == 1


def test_training_learns_and_two_trainings_are_the_same(trained, device, tmp_path):
    train("--run", str(tmp_path / "again"), "--slope_epochs", "2", accelerator=device.type)
    assert_same(trained, tmp_path / "again")
    loss = [float(row["train_loss"]) for row in metrics(trained)]
    assert max(loss[1:]) < loss[0]
    train("--run", str(tmp_path / "other"), "--slope_epochs", "2", "--seed", "1", accelerator=device.type)
    one, other = final_weights(trained), final_weights(tmp_path / "other")
    name = "model.safetensors/levels.0.steps.0.expand1.pw1.weight"
    assert not torch.equal(one[name], other[name])


@pytest.mark.parametrize("loss", ["deep_supervision", "temporal"])
def test_training_asks_for_what_its_loss_needs_through_forward(device, tmp_path, loss):
    """All heads, so that what is wrapped around forward applies; after every timestep, which forward does not give."""
    seen = []

    def build(config):
        model = TRevSNN(config)
        model.register_forward_hook(lambda model, x, out: seen.append(out) if model.training else None)
        return model

    config = RunConfig(
        model=TRevSNNConfig(channels=(4, 4), timesteps=2, num_classes=10, in_chans=1, encoder_stride=1),
        data=DataConfig(name="digits", image_size=8), epochs=1, batch_size=718, accelerator=device.type, loss=loss,
        optim=OptimConfig(warmup_epochs=0),
    )  # fmt: skip
    assert train_run(config, tmp_path / "run", Console(quiet=True), build)["steps"] == 2
    expected = [[(718, 10)] * 4] * 2 if loss == "deep_supervision" else []
    assert [[tuple(head.shape) for head in heads] for heads in seen] == expected


def test_training_is_deterministic_without_filling_new_memory(trained):
    assert trained.exists()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


def test_workers_change_nothing_and_end_with_the_training(trained, device, tmp_path):
    run, before = tmp_path / "workers", set(multiprocessing.active_children())
    train("--run", str(run), "--slope_epochs", "2", "--data.workers", "2", accelerator=device.type)
    assert set(multiprocessing.active_children()) <= before
    assert_same(trained, tmp_path / "workers")


@pytest.mark.parametrize(
    "options",
    [
        ["--precision", "64-true", "--model.backprop", "reversible"],
        [
            "--loss",
            "temporal",
            "--optim.name",
            "lamb",
            "--optim.lr",
            "0.003",
            "--ema_decay",
            "null",
            "--optim.clip",
            "null",
        ],
        ["--model.encoding", "grouped", "--data.rotation", "10", "--data.erasing", "0.2", "--data.flip", "true"],
    ],
)
def test_other_ways_to_train(device, tmp_path, options):
    if device.type == "mps" and "64-true" in options:
        pytest.skip("MPS has no float64")
    run = tmp_path / "run"
    train(
        "--run",
        str(run),
        "--epochs",
        "2",
        "--batch_size",
        "256",
        "--model.timesteps",
        "2",
        *options,
        accelerator=device.type,
    )
    rows = metrics(run)
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    assert main(["evaluate", str(run), "--accelerator", device.type]) == 0


def test_mixup_trains(device, tmp_path):
    run = tmp_path / "run"
    train(
        "--run",
        str(run),
        "--data.mixup",
        "0.2",
        "--data.cutmix",
        "0.5",
        "--optim.clip_mode",
        "agc",
        "--optim.clip",
        "0.1",
        "--batch_size",
        "256",
        "--model.timesteps",
        "2",
        accelerator=device.type,
    )
    losses = [float(row["train_loss"]) for row in metrics(run)]
    assert losses[-1] < losses[0]
