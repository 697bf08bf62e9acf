"""Loading a trained network."""

import shutil

import pytest

from trevsnn.cli.main import main
from trevsnn.errors import RunError
from trevsnn.run.checkpoint import load_checkpoint, save_checkpoint
from trevsnn.run.load import load_run


def spoil(run, prefix, part, name):
    """Put a NaN into one weight of a run's checkpoint."""
    checkpoint = max((run / "checkpoints").glob(f"{prefix}-*"))
    weights, state = load_checkpoint(checkpoint)
    weights[part][name].flatten()[0] = float("nan")
    save_checkpoint(checkpoint, weights, state)


@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_every_command_refuses_weights_that_are_not_finite(finished, tmp_path, capsys, command):
    run = shutil.copytree(finished, tmp_path / "run")
    spoil(run, "step", "ema", "levels.1.shared.pw2.gain")
    more = {"evaluate": [], "predict": ["missing.png"], "export": ["--out", str(tmp_path / "out")]}[command]
    assert main([command, str(run), *more]) == 1
    assert not (tmp_path / "out").exists()
    said = " ".join(capsys.readouterr().err.split())
    assert "levels.1.shared.pw2.gain holds NaN or infinite numbers in" in said
    assert "ema.safetensors: use an earlier checkpoint" in said


def test_only_the_weights_that_are_used_have_to_be_finite(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    spoil(run, "step", "model", "levels.1.shared.pw2.gain")  # the averaged ones are evaluated
    spoil(run, "best", "model", "heads.0.classifier.bias")
    assert load_run(run, "last").checkpoint.startswith("step-")
    with pytest.raises(RunError, match=r"heads\.0\.classifier\.bias holds NaN .*best-\d+.model\.safetensors"):
        load_run(run, "best")
