"""Training, resuming, evaluating and predicting, through the command line on real digits."""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import trevsnn
from helpers import SMALL, assert_same, final_weights, imitate_fashion_mnist, metrics, train
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.loading import TensorDataset
from trevsnn.data.sets import load
from trevsnn.run.checkpoint import load_checkpoint, save_checkpoint
from trevsnn.run.config import OptimConfig, RunConfig
from trevsnn.train.optim import MUON_VECTORS, build_optimizer, build_scheduler, clip_gradients


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run, not to be changed."""
    run = tmp_path_factory.mktemp("finished") / "run"
    train("--run", str(run), "--slope_epochs", "2")
    return run


def test_a_run_folder_holds_everything(finished):
    summary = json.loads((finished / "summary.json").read_text())
    rows = metrics(finished)
    accuracies = [float(row["val_accuracy"]) for row in rows]
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert summary["last_accuracy"] == accuracies[-1]
    assert summary["best_accuracy"] == max(accuracies)
    assert summary["parameters"] == sum(
        t.numel() for n, t in final_weights(finished).items()
        if n.startswith("model.safetensors/") and not n.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )  # fmt: skip
    assert summary["items"] == {"train": 1437, "val": 360}
    assert len(summary["firing_rates"]) == 2
    assert all(0.01 < rate < 0.99 for rate in summary["firing_rates"])
    assert [len(row) for row in summary["hidden_rates"]] == [2, 2]
    assert summary["hidden_rates"][1][0] == float(rows[-1]["rate_hidden1_1"])
    assert all(0.001 < rate < 0.99 for row in summary["hidden_rates"] for rate in row)
    assert summary["seconds"] > 0
    assert summary["peak_memory_bytes"] > 50e6
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config == summary["config"]
    assert config["model"]["channels"] == [4, 8]
    assert config["optim"]["lr"] == 0.02  # of the recipe
    with Image.open(finished / "curves.png") as picture:
        assert picture.format == "PNG"
        assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 20
    events = EventAccumulator(str(finished / "tensorboard")).Reload()
    assert [round(e.value, 6) for e in events.Scalars("val_accuracy")] == [round(a, 6) for a in accuracies]
    assert len(list((finished / "checkpoints").glob("step-*"))) == 2
    assert len(list((finished / "checkpoints").glob("best-*"))) == 1


def test_training_learns_and_two_trainings_are_the_same(finished, tmp_path):
    train("--run", str(tmp_path / "again"), "--slope_epochs", "2")
    assert_same(finished, tmp_path / "again")
    loss = [float(row["train_loss"]) for row in metrics(finished)]
    assert max(loss[1:]) < loss[0]
    train("--run", str(tmp_path / "other"), "--slope_epochs", "2", "--seed", "1")
    one, other = final_weights(finished), final_weights(tmp_path / "other")
    name = "model.safetensors/levels.0.steps.0.expand1.pw1.weight"
    assert not torch.equal(one[name], other[name])


def test_training_is_deterministic_without_filling_new_memory(finished):
    assert finished.exists()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


def test_workers_change_nothing(finished, tmp_path):
    train("--run", str(tmp_path / "workers"), "--slope_epochs", "2", "--data.workers", "2")
    assert_same(finished, tmp_path / "workers")


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "trevsnn.cli.main", *arguments], stdout=subprocess.DEVNULL)


def test_killed_and_resumed_equals_uninterrupted(finished, tmp_path):
    """kill -9 at arbitrary moments of a run that saves after every step: most of them hit the writing."""
    run = tmp_path / "killed"
    process = start("train", *SMALL, "--slope_epochs", "2", "--run", str(run), "--checkpoint_seconds", "0")
    dice = random.Random(0)
    for after in (2, 17):
        deadline = time.monotonic() + 120
        steps = run / "checkpoints"
        while not any(int(p.name[5:]) >= after for p in steps.glob("step-*") if p.is_dir()):
            assert process.poll() is None, "ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.2))
        process.kill()
        process.wait()
        if after == 2:
            process = start("train", "--resume", str(run))
    assert not (run / "summary.json").exists()
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(finished, run)
    ours, theirs = (json.loads((r / "summary.json").read_text()) for r in (run, finished))
    for name in ("last_accuracy", "best_accuracy", "best_epoch", "steps", "firing_rates"):
        assert ours[name] == theirs[name]
    best = [load_file(max((r / "checkpoints").glob("best-*")) / "model.safetensors") for r in (run, finished)]
    assert all(torch.equal(tensor, best[1][name]) for name, tensor in best[0].items())


def unfinish(run: Path, copy: Path, *, keep: int = 2) -> Path:
    """A copy of a run as it stood before its last epoch's checkpoint."""
    shutil.copytree(run, copy)
    (copy / "summary.json").unlink()
    for folder in sorted((copy / "checkpoints").glob("step-*"))[keep:]:
        shutil.rmtree(folder)
    return copy


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "all"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_used(finished, tmp_path, capsys, damage):
    run = unfinish(finished, tmp_path / "damaged")
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
    assert_same(finished, run)


def test_an_interrupted_writing_leaves_nothing_behind(finished, tmp_path):
    run = unfinish(finished, tmp_path / "half", keep=1)
    half = run / "checkpoints" / ".step-000000099.part"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert main(["train", "--resume", str(run)]) == 0
    assert not half.exists()
    assert_same(finished, run)


def test_resuming_before_the_first_checkpoint_begins_anew(finished, tmp_path, capsys):
    run = unfinish(finished, tmp_path / "none", keep=0)
    assert main(["train", "--resume", str(run)]) == 0
    assert "starting from the beginning" in capsys.readouterr().out
    assert_same(finished, run)


def test_resuming_a_finished_run_changes_nothing(finished, tmp_path):
    run = tmp_path / "done"
    shutil.copytree(finished, run)
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(finished, run)
    accuracies = [json.loads((r / "summary.json").read_text())["last_accuracy"] for r in (run, finished)]
    assert accuracies[0] == accuracies[1]


def test_muon_trains_and_resumes(tmp_path):
    whole = tmp_path / "whole"
    train("--run", str(whole), "--optim.name", "muon", "--optim.lr", "0.02")
    loss = [float(row["train_loss"]) for row in metrics(whole)]
    assert loss[2] < loss[0]
    run = unfinish(whole, tmp_path / "resumed", keep=1)
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(whole, run)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_matrices_alone_decay(optimizer):
    """With gradients of zero nothing but weight decay changes a weight."""
    model = trevsnn.TRevSNN(trevsnn.TRevSNNConfig(channels=(4, 8), timesteps=2, num_classes=5))
    config = RunConfig(optim=OptimConfig(name=optimizer, lr=0.1, weight_decay=0.1))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    build_optimizer(model, config).step()
    for name, value in model.named_parameters():
        vector = name.endswith(("bias", "gain", "gamma", "bn.weight")) or ".alphas." in name
        depthwise = ".dw" in name  # a matrix to AdamW, not to Muon
        decayed = 1 - 0.1 * 0.1 * (MUON_VECTORS if depthwise and optimizer == "muon" else 1)
        expected = before[name] * (1.0 if vector else decayed)
        assert torch.allclose(value, expected, rtol=1e-6, atol=0), name


def test_muon_s_matrices_step_orthogonally_and_its_vectors_as_adamw_s():
    holder = torch.nn.ParameterDict(
        {"matrix": torch.nn.Parameter(torch.zeros(8, 16)), "gain": torch.nn.Parameter(torch.zeros(5))}
    )
    for value in holder.values():
        value.grad = torch.rand_like(value) + 0.1
    build_optimizer(holder, RunConfig(optim=OptimConfig(name="muon", lr=0.1, weight_decay=0.0))).step()
    assert torch.allclose(holder["gain"], torch.full((5,), -0.1 / 5))  # Adam's first step is its rate
    singular = torch.linalg.svdvals(holder["matrix"].detach()) / (0.1 * 0.2 * 16**0.5)
    assert 0.6 < float(singular.min()) < float(singular.max()) < 1.3  # five Newton-Schulz iterations get that near to 1


@pytest.mark.parametrize(
    "options",
    [
        ["--precision", "64-true", "--model.backprop", "reversible"],
        ["--loss", "temporal", "--optim.name", "lamb", "--ema_decay", "null", "--optim.clip", "null"],
        ["--model.encoding", "grouped", "--data.rotation", "10", "--data.erasing", "0.2", "--data.flip", "true"],
    ],
)
def test_other_ways_to_train(tmp_path, options):
    run = tmp_path / "run"
    train("--run", str(run), "--epochs", "2", *options)
    rows = metrics(run)
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    assert main(["evaluate", str(run)]) == 0


def test_bf16_autocast_is_at_work_and_close_in_training_and_evaluation(tmp_path, capsys):
    # Small: processors without instructions for it are slow at bf16.
    options = ["--model.channels", "[2,4]", "--model.timesteps", "1", "--epochs", "1", "--optim.warmup_epochs", "0"]
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        train("--run", str(tmp_path / precision), "--precision", precision, *options)
        losses.append(float(metrics(tmp_path / precision)[0]["train_loss"]))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "bf16-mixed"), "--json"]) == 0
    result, row = json.loads(capsys.readouterr().out), metrics(tmp_path / "bf16-mixed")[-1]
    assert result["accuracy"] == float(row["val_accuracy"])
    assert result["loss"] == pytest.approx(float(row["val_loss"]), rel=1e-6)


def test_the_fashion_mnist_recipe_measures_the_test_part_at_the_end(tmp_path, capsys):
    imitate_fashion_mnist(tmp_path / "data")
    run = tmp_path / "run"
    options = [
        "--data.root", str(tmp_path / "data"), "--epochs", "1", "--optim.warmup_epochs", "0", "--batch_size", "256",
        "--model.channels", "[4,8]", "--model.timesteps", "1", "--model.encoder_stride", "4", "--accelerator", "cpu",
    ]  # fmt: skip
    assert main(["train", "--recipe", "fashion-mnist", *options, "--run", str(run)]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["items"] == {"train": 1000, "val": 5000, "test": 6000}
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["split"], result["items"], result["accuracy"]) == ("test", 6000, summary["test_accuracy"])


def test_learning_rates_grow_with_the_batch_and_warm_up_takes_a_part_of_an_epoch():
    rates = {}
    for name, lr_per in {"plain": None, "ruled": 256}.items():
        optim = OptimConfig(lr=0.1, warmup_epochs=0.5, warmup_lr=0.0, lr_per=lr_per)
        config = RunConfig(batch_size=64, epochs=2, optim=optim)
        weight = torch.nn.Parameter(torch.ones(2, 2))
        holder = torch.nn.ParameterList([weight])
        optimizer = build_optimizer(holder, config)
        schedule = build_scheduler(optimizer, config, steps_per_epoch=10)
        rates[name] = []
        for step in range(21):
            schedule.step_update(step)
            rates[name].append(optimizer.param_groups[0]["lr"])
    assert rates["plain"][0] == 0
    assert rates["plain"][1] == pytest.approx(0.02)
    assert max(rates["plain"]) == pytest.approx(rates["plain"][5]) == pytest.approx(0.1, rel=0.2)
    assert rates["plain"][20] == pytest.approx(1e-6)
    assert rates["ruled"] == pytest.approx([rate / 4 for rate in rates["plain"]])


def test_clipping_is_timm_s_and_the_norm_is_the_one_before():
    weight, head = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    for mode in ("norm", "agc"):
        weight.grad, head.grad = torch.full((2, 3), 4.0), torch.full((2, 3), 3.0)
        norm = clip_gradients([weight, head], [head], OptimConfig(clip=0.5, clip_mode=mode))
        assert float(norm) == pytest.approx(150**0.5)
        if mode == "norm":
            assert torch.allclose(weight.grad, torch.full((2, 3), 4 * 0.5 / 150**0.5))
        else:  # each row's gradient to half its weights' norm; heads as they were
            assert torch.allclose(weight.grad.norm(dim=1), torch.full((2,), 0.5 * 3**0.5))
            assert torch.equal(head.grad, torch.full((2, 3), 3.0))


def test_mixup_trains(tmp_path):
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
    )
    losses = [float(row["train_loss"]) for row in metrics(run)]
    assert losses[-1] < losses[0]


def test_evaluate_repeats_the_training_figures(finished, capsys):
    summary = json.loads((finished / "summary.json").read_text())
    for weights, name in (("last", "last_accuracy"), ("best", "best_accuracy")):
        assert main(["evaluate", str(finished), "--json", "--weights", weights]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["accuracy"] == summary[name]
        assert (result["split"], result["items"]) == ("val", 360)
    assert main(["evaluate", str(finished), "--split", "train"]) == 0
    assert "1437 train items" in " ".join(capsys.readouterr().out.split())


def test_predict_gives_the_model_s_class_and_probability(finished, tmp_path, capsys):
    held_out = load(DataConfig(), "val", 1)
    files = []
    for i in range(12):
        files.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(held_out.images[i]).save(files[-1])
    big = str(tmp_path / "big.png")
    Image.fromarray(held_out.images[0]).convert("RGB").resize((64, 64)).save(big)
    assert main(["predict", str(finished), *files, big, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    from trevsnn.run.load import load_run

    model, config, _, _ = load_run(finished, "last")
    dataset = TensorDataset(held_out, config.data, 0, training=False)
    with torch.no_grad():
        expected = model(torch.stack([dataset[0, i][0] for i in range(12)])).softmax(1)
    for i, row in enumerate(rows[:12]):
        assert row["class"] == str(int(expected[i].argmax()))
        assert row["probability"] == pytest.approx(float(expected[i].max()), abs=1e-5)
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert [row["file"] for row in rows] == [*files, big]
    assert main(["predict", str(finished), files[0]]) == 0
    assert "probability" in capsys.readouterr().out


def test_a_checkpoint_keeps_nested_state_as_it_was(tmp_path):
    state = {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
             "none": None, "name": "x"}  # fmt: skip
    weights = {"model": {"w": torch.randn(3, 2).t(), "s": torch.tensor(1)}}
    save_checkpoint(tmp_path / "c", weights, state)
    save_checkpoint(tmp_path / "c", weights, state)  # replaces
    found, back = load_checkpoint(tmp_path / "c")
    assert torch.equal(found["model"]["w"], weights["model"]["w"])
    assert back["optimizer"]["state"][0]["step"] == 3
    assert back["optimizer"]["groups"] == [{"lr": 0.1, "betas": [0.9, 0.99]}]
    assert (back["none"], back["name"]) == (None, "x")


def test_the_digits_are_the_scans_of_scikit_learn():
    train_part, held_out = load(DataConfig(), "train", 1), load(DataConfig(), "val", 1)
    both = np.concatenate([train_part.images, held_out.images])
    grey = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(p.tobytes() for p in both) == sorted(p.tobytes() for p in grey)
    assert train_part.mean == pytest.approx((train_part.images.mean() / 255,))
    assert held_out.digest() == "a2fc2790f951761efa3de96d98e5fd3fec1bfbc4ef550eb2193c8e5117cf4c96"
    assert train_part.digest() == "7531db42dd3ff2d2862222a0b92a7132eab114482b8de0e522adc4d755f9686c"
