"""What a run tells while it trains: lines, time left, figures within an epoch, comparable losses, one warning."""

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from helpers import folder_of_pictures, metrics
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.errors import UsageError
from trevsnn.run.config import OptimConfig, RunConfig
from trevsnn.train.curves import EpochFiles, curves
from trevsnn.train.processes import make_fabric
from trevsnn.train.progress import RunClock, RunProgress
from trevsnn.train.rates import RateWatch
from trevsnn.train.report import metrics_csv
from trevsnn.train.step import Stepper
from trevsnn.train.steps import StepLog
from trevsnn.train.train import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    folder_of_pictures(root, ("train", "val"))
    return root


def config(data: Path, **options: object) -> RunConfig:
    mixup = options.pop("mixup", 0.0)
    return RunConfig(**{
        "model": TRevSNNConfig(channels=(2, 4), timesteps=2, num_classes=2, in_chans=3, encoder_stride=1),
        "data": DataConfig(name="folder", root=str(data), image_size=8, mixup=mixup), "epochs": 2, "batch_size": 8,
        "accelerator": "cpu", "optim": OptimConfig(warmup_epochs=0), **options,
    })  # fmt: skip


def step_rows(run: Path) -> list[dict[str, float]]:
    rows = csv.DictReader((run / "steps.csv").read_text().splitlines())
    return [{name: float(value) for name, value in row.items()} for row in rows]


@pytest.mark.parametrize("loss", ["deep_supervision", "temporal"])
def test_losses_of_epochs_and_steps_are_those_of_the_logits(data, tmp_path, monkeypatch, loss):
    """train_ce is the plain cross entropy of what evaluation would read; the objective has its own column."""
    logits, labels, norms = [], [], []
    take = Stepper.take

    def recorded(stepper, parts):
        labels.extend(label for _, label in parts)
        norms.append(float(take(stepper, parts)))
        return torch.tensor(norms[-1])

    monkeypatch.setattr(Stepper, "take", recorded)

    def build(model_config):
        model = TRevSNN(model_config)
        for head in model.heads[-1:]:
            head.register_forward_hook(lambda head, x, out: logits.append(out.detach()) if head.training else None)
        return model

    options = {"loss": loss, "label_smoothing": 0.2, "accumulate": 2}
    train(config(data, **options), tmp_path / "run", Console(quiet=True), build)
    if loss == "temporal":
        logits = logits[1::2]  # of the last of two timesteps
    ce = [float(nn.functional.cross_entropy(x, y)) for x, y in zip(logits, labels, strict=True)]
    rows = step_rows(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert [row["epoch"] for row in rows] == [1] * 5 + [2] * 5
    assert [row["train_ce"] for row in rows] == pytest.approx(
        [(a + b) / 2 for a, b in zip(ce[::2], ce[1::2], strict=True)]
    )
    assert [row["gradient_norm"] for row in rows] == pytest.approx(norms)
    for epoch, row in enumerate(metrics(tmp_path / "run")):
        assert list(row)[-1] == "train_ce"
        assert float(row["train_ce"]) == pytest.approx(sum(ce[10 * epoch : 10 * epoch + 10]) / 10)
        five = rows[5 * epoch : 5 * epoch + 5]
        assert float(row["train_loss"]) == pytest.approx(sum(step["loss"] for step in five) / 5)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "steps")).Reload()
    for name in ("loss", "train_ce", "lr", "gradient_norm"):
        found = events.Scalars(name)
        assert [event.step for event in found] == list(range(1, 11))
        assert [event.value for event in found] == pytest.approx([row[name] for row in rows], rel=1e-6)


def test_mixed_batches_have_no_loss_of_the_same_kind(data, tmp_path):
    train(config(data, mixup=0.5), tmp_path / "run", Console(quiet=True))
    assert all(math.isnan(float(row["train_ce"])) for row in metrics(tmp_path / "run"))
    assert all(math.isnan(row["train_ce"]) and row["loss"] > 0 for row in step_rows(tmp_path / "run"))


def test_rows_of_steps_survive_a_resumption_undoubled(data, tmp_path):
    """Of a run whose last checkpoint is lost, and that was killed while it wrote a row."""
    run, console = tmp_path / "run", Console(quiet=True)
    train(config(data), run, console)
    before = (run / "steps.csv").read_bytes()
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints" / "step-000000010")
    with (run / "steps.csv").open("ab") as file:
        file.write(b"11,3,0.5")
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "steps.csv").read_bytes() == before
    events = EventAccumulator(str(run / "tensorboard" / "steps")).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 11))


def test_long_epochs_have_a_row_for_every_few_steps_and_their_last(tmp_path):
    log = StepLog(tmp_path, 250, 0)
    assert [step for step in range(1, 501) if log.is_due(step)][:4] == [3, 6, 9, 12]
    assert [step for step in range(240, 260) if log.is_due(step)] == [240, 243, 246, 249, 250, 253, 256, 259]
    log.add(3, 0.1, 2, torch.tensor([3.0, 1.0]), torch.tensor(5.0))
    log.add(250, 0.2, 0, torch.tensor([0.0, 0.0]), torch.tensor(torch.inf))
    assert not (tmp_path / "steps.csv").exists()
    log.flush()
    one, other = step_rows(tmp_path)
    assert one == {"step": 3, "epoch": 1, "loss": 1.5, "train_ce": 0.5, "lr": 0.1, "gradient_norm": 5}
    assert math.isnan(other["loss"])
    assert other["gradient_norm"] == math.inf
    StepLog(tmp_path, 250, 249)
    assert step_rows(tmp_path) == [one]


def test_histories_of_earlier_versions_are_written_and_drawn():
    row = {"epoch": 1, "train_loss": 5.0, "val_loss": 1.5, "val_accuracy": 0.5, "rate_level0": 0.1}
    new = {**row, "epoch": 2, "train_loss": 4.0, "val_loss": 1.0, "train_ce": 0.75}
    assert metrics_csv([row, new]).decode().splitlines() == [
        "epoch,train_loss,val_loss,val_accuracy,rate_level0,train_ce", "1,5.0,1.5,0.5,0.1,", "2,4.0,1.0,0.5,0.1,0.75",
    ]  # fmt: skip
    loss, *_, objective = curves([row, new]).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in loss.lines}
    assert drawn["held out"] == [1.5, 1.0]
    assert math.isnan(drawn["training"][0])
    assert drawn["training"][1] == 0.75
    assert list(objective.lines[0].get_ydata()) == [5.0, 4.0]
    assert "training" not in [line.get_label() for line in curves([row]).axes[0].lines]


def test_curves_are_drawn_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    row = {"epoch": 1, "train_loss": 5.0, "val_loss": 1.5, "val_accuracy": 0.5, "rate_level0": 0.1}
    files, picture = EpochFiles(tmp_path), tmp_path / "curves.png"
    files.draw()  # nothing
    files.write([row])
    assert (tmp_path / "metrics.csv").read_bytes() == metrics_csv([row])
    assert not picture.exists()
    files.draw()
    first = picture.read_bytes()
    files.write([row, row | {"epoch": 2, "val_accuracy": 0.7}])
    assert picture.read_bytes() == first
    monkeypatch.setattr("trevsnn.train.curves.DRAWN_EVERY", 0.0)
    files.write([row, row | {"epoch": 2, "val_accuracy": 0.7}])
    assert picture.read_bytes() != first


def test_what_a_kill_after_the_last_checkpoint_left_unwritten_is_written(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    table = (run / "metrics.csv").read_text()
    for name in ("summary.json", "curves.png"):
        (run / name).unlink()
    (run / "metrics.csv").write_text("".join(table.splitlines(keepends=True)[:-1]))
    assert main(["train", "--resume", str(run)]) == 0
    assert (run / "metrics.csv").read_text() == table
    assert (run / "curves.png").read_bytes() == (finished / "curves.png").read_bytes()


def test_the_time_left_is_that_of_all_steps_and_evaluations():
    clock = RunClock(epochs=10, steps_per_epoch=100, held_out=0.3)
    assert clock.left(0, 0) is None
    for _ in range(500):
        clock.add_step(2.0)
    assert clock.left(100, 0) == pytest.approx(900 * 2 + 10 * 100 * 2 * 0.3 / 3)
    clock.add_evaluation(30.0)
    assert clock.left(250, 2) == pytest.approx(750 * 2 + 8 * 30)
    for _ in range(2000):
        clock.add_step(1.0)  # the machine has become faster
    assert clock.seconds_per_step == pytest.approx(1.0, rel=1e-3)


def test_lines_of_what_is_trained_and_of_the_first_steps(data, tmp_path, capsys):
    oblong = DataConfig(name="folder", root=str(data), image_size=(8, 12))
    train(replace(config(data, batch_size=4), data=oblong), tmp_path / "run", Console())
    lines = capsys.readouterr().out.splitlines()
    parameters = json.loads((tmp_path / "run" / "summary.json").read_text())["parameters"]
    assert [" ".join(line.split()) for line in lines[:5]] == [
        "data folder: 40 pictures of 2 classes, 3 x 8 x 12; 40 held out", f"in {data}",
        f"network channels 2 4, T = 2, {parameters:,} parameters, backprop exact",
        "training 2 epochs of 10 steps of 4 items; adamw, 32-true, on cpu", f"run {tmp_path / 'run'}",
    ]  # fmt: skip
    rows = metrics(tmp_path / "run")
    loss = float(rows[0]["train_loss"])
    line = rf"epoch 1/2  step 10/10  [\d,]+ items/s  loss {loss:.4f}  \d:\d\d:\d\d left of the run"
    assert sum(re.fullmatch(line, text) is not None for text in lines) == 1


def test_a_log_has_a_line_now_and_then(monkeypatch, capsys):
    now, asked = [0.0], []
    monkeypatch.setattr("trevsnn.train.progress.time.monotonic", lambda: now[0])

    def lines(seconds: float, steps_per_epoch: int) -> list[int]:
        asked.clear()
        progress = RunProgress(Console(width=200), 1, steps_per_epoch, 8, 0.1)
        with progress.epoch(0, 0):
            for step in range(1, steps_per_epoch + 1):
                now[0] += seconds
                progress.step(step, lambda step=step: asked.append(step) or 0.5)
        return [int(n.replace(",", "")) for n in re.findall(r"step ([\d,]+)/", capsys.readouterr().out)]

    assert lines(0.125, 1000) == [10, 250, 490, 730, 970] == asked  # every 30 s
    assert lines(1.0, 1000) == [*range(10, 1000, 100)]  # every tenth
    assert lines(1.0, 20000) == [10, *range(610, 20000, 600)]  # every ten minutes


def test_silent_and_saturated_layers_are_named_when_they_change():
    living, watch = [0.3, 0.1, 0.2], RateWatch(None)
    assert watch.look([[0.2, 0.01, 0.9], living]) is None
    bad = [[0.005, 0.1, 0.2], living, [0.3, 0.004, 0.0], [0.3, 0.0, 0.0], [0.95, 0.1, 0.2]]
    assert watch.look(bad) == (
        "layers fire under 1%: the state of level 0 and both hidden layers of levels 2 and 3; over 90%: the state of level 4: "
        "lower optim.lr or raise optim.warmup_epochs; if they stay silent their levels work by their links alone, and can be "
        "narrower (model.channels)"
    )
    assert watch.look(bad) is None
    assert watch.look([living, [0.3, 0.1, 0.95]]) == (
        "layers fire over 90%: the second hidden layer of level 1: lower optim.lr or raise optim.warmup_epochs"
    )
    assert watch.look([living, living]) is None
    assert "begin with start=derived" in str(RateWatch("published").look([[0.0, 0.1, 0.1]]))


@pytest.mark.parametrize(("warmup", "said"), [(0, "after epoch 1"), (1.5, "after epoch 2")])
def test_no_warning_before_the_warm_up_is_over(data, tmp_path, capsys, monkeypatch, warmup, said):
    """Every layer counts as silent here, so that there is something to warn of."""
    monkeypatch.setattr("trevsnn.train.rates.RATE_LOW", 1.1)
    train(config(data, optim=OptimConfig(warmup_epochs=warmup)), tmp_path / "run", Console(width=400))
    warnings = [line for line in capsys.readouterr().out.splitlines() if "layers fire under" in line]
    assert [line.partition(" layers")[0] for line in warnings] == [f"warning: {said}"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_one_sentence(data):
    with pytest.raises(UsageError) as raised:
        make_fabric(config(data, accelerator="cuda"))
    assert str(raised.value) == (
        "accelerator 'cuda' cannot be used here, as PyTorch finds no CUDA device: use 'auto', or 'cpu'."
    )
