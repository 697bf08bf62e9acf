"""Training in float16 with loss scaling: what scaling is for, when a step is skipped, and when a run is ended."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from helpers import TINY_FLOAT16, folder_of_pictures, metrics
from trevsnn.cli.main import main
from trevsnn.errors import RunError
from trevsnn.run.checkpoint import load_checkpoint
from trevsnn.train import processes
from trevsnn.train.guard import StepGuard


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Options of a training on twenty pictures, five steps an epoch."""
    folder_of_pictures(tmp_path / "data", ("train", "val"), n=10)
    return [*TINY_FLOAT16, "--data.root", str(tmp_path / "data")]


def last_state(run: Path) -> dict:
    return load_checkpoint(max((run / "checkpoints").glob("step-*")))[1]


def test_a_gradient_that_float16_cannot_hold_is_right_with_scaling(device):
    layer, x = nn.Linear(2, 1, bias=False).to(device), torch.tensor([[1.0, 0.5]], device=device)
    found = []
    for scaler in (GradScaler(device.type, enabled=False), GradScaler(device.type)):
        optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.float16):
            loss = layer(x).float().sum() * 2.0**-26
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        found.append(layer.weight.grad.tolist())
    assert found == [[[0.0, 0.0]], [[2.0**-26, 2.0**-27]]]


def step_with(guard: StepGuard, scaler: GradScaler, weight: nn.Parameter, gradient: float) -> bool:
    optimizer = torch.optim.SGD([weight])
    weight.grad = None
    scaler.scale(weight * gradient).backward()
    scaler.unscale_(optimizer)
    assert weight.grad is not None
    if not guard.accept(weight.grad.norm()):
        return False
    scaler.step(optimizer)
    scaler.update()
    return True


def test_a_run_that_looks_for_its_scale_goes_on_and_one_without_any_ends():
    weight, scaler = nn.Parameter(torch.ones(())), GradScaler("cpu")
    guard = StepGuard(nn.BatchNorm2d(2), limit=2, scaler=scaler)
    for skipped in range(1, 17):  # from 65,536 down to 1
        assert not step_with(guard, scaler, weight, torch.inf)
        assert (scaler.get_scale(), guard.skipped, guard.in_a_row) == (2.0 ** (16 - skipped), skipped, 0)
    assert not step_with(guard, scaler, weight, torch.inf)
    assert guard.in_a_row == 1
    assert step_with(guard, scaler, weight, 1.0)
    assert guard.in_a_row == 0
    assert not step_with(guard, scaler, weight, torch.nan)
    with pytest.raises(RunError, match="in 2 steps one after the other, with a loss scale of 1 or less"):
        step_with(guard, scaler, weight, torch.nan)


def test_a_scale_that_does_not_fall_is_not_at_fault():
    """Where no gradient overflows, but their norm does."""
    weight, scaler = nn.Parameter(torch.ones(2)), GradScaler("cpu")
    guard = StepGuard(nn.BatchNorm2d(2), limit=2, scaler=scaler)
    for expected in (1, None):
        optimizer = torch.optim.SGD([weight])
        scaler.scale(weight.sum()).backward()
        scaler.unscale_(optimizer)
        if expected:
            assert not guard.accept(torch.tensor(torch.inf))
            assert (scaler.get_scale(), guard.in_a_row) == (65536.0, expected)
        else:
            with pytest.raises(RunError):
                guard.accept(torch.tensor(torch.inf))


def test_a_step_that_overflows_is_skipped_once_and_halves_the_scale(data, device, tmp_path, monkeypatch):
    monkeypatch.setattr(
        processes, "_precision", lambda _: {"plugins": [plugin(device.type, GradScaler(device.type, 2.0**24))]}
    )
    run = tmp_path / "run"
    options = [*data, "--accelerator", device.type, "--epochs", "3", "--max_nonfinite", "1", "--run", str(run)]
    assert main(options) == 0
    skipped = [int(row["skipped_steps"]) for row in metrics(run)]
    scaler = last_state(run)["scaler"]
    assert skipped[0] == 5 > skipped[-1]
    assert scaler["scale"] == 2.0 ** (24 - sum(skipped))
    assert scaler["_growth_tracker"] >= 1
    assert json.loads((run / "summary.json").read_text())["skipped_steps"] == sum(skipped)


def plugin(kind: str, scaler: GradScaler):
    return processes.MixedPrecision("16-mixed", kind, scaler)


@pytest.mark.parametrize("clip_mode", ["norm", "agc"])
@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "muon"])
def test_scaling_changes_nothing_where_nothing_is_out_of_range(
    data, device, tmp_path, monkeypatch, optimizer, clip_mode
):
    """A step's moments are those of a step without a scale: of the gradient of all parts, unscaled before it is clipped."""
    states = []
    for name, scaler in (
        ("scaled", GradScaler(device.type, 2.0**8)),
        ("plain", GradScaler(device.type, enabled=False)),
    ):
        monkeypatch.setattr(
            processes, "_precision", lambda _, scaler=scaler: {"plugins": [plugin(device.type, scaler)]}
        )
        options = [
            *data, "--accelerator", device.type, "--optim.name", optimizer, "--optim.clip_mode", clip_mode,
            "--optim.clip", "0.05", "--accumulate", "2", "--batch_size", "20", "--epochs", "1", "--run", str(tmp_path / name),
        ]  # fmt: skip
        assert main(options) == 0
        assert metrics(tmp_path / name)[0]["skipped_steps"] == "0"
        states.append(last_state(tmp_path / name)["optimizer"]["state"])
    moments = [
        torch.cat(
            [t.flatten() for own in state.values() for t in own.values() if isinstance(t, torch.Tensor) and t.dim()]
        )
        for state in states
    ]
    assert moments[1].norm() > 0
    assert (moments[0] - moments[1]).norm() < 0.01 * moments[1].norm()


def test_gradients_that_are_finite_at_no_scale_end_a_run(data, tmp_path, monkeypatch, capsys):
    from trevsnn.data.loading import TensorDataset

    plain = TensorDataset.__getitem__
    monkeypatch.setattr(TensorDataset, "__getitem__", lambda self, key: (plain(self, key)[0] * torch.nan, 1, -1))
    assert main([*data, "--epochs", "9", "--max_nonfinite", "3", "--run", str(tmp_path / "run")]) == 1
    assert "not finite in 3 steps one after the other, with a loss scale of 1 or less" in capsys.readouterr().err
    assert int(metrics(tmp_path / "run")[-1]["step"]) == 15  # the run ended at step 16 + 3


def test_float16_is_at_work_and_close_in_training_and_evaluation(data, device, tmp_path, capsys):
    losses = []
    for precision in ("32-true", "bf16-mixed", "16-mixed"):
        run = tmp_path / precision
        # No step: a first loss, which no skipped step takes part in, is of the initial weights.
        options = ["--precision", precision, "--optim.lr", "0", "--optim.warmup_lr", "0", "--optim.min_lr", "0"]
        assert main([*data, "--accelerator", device.type, *options, "--epochs", "1", "--run", str(run)]) == 0
        losses.append(float(metrics(run)[0]["val_loss"]))
    assert len(set(losses)) == 3
    assert losses[2] == pytest.approx(losses[0], rel=0.01)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--accelerator", device.type, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(losses[2], rel=1e-6)
