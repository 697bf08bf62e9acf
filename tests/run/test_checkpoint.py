"""Checkpoints."""

import torch

from trevsnn.run.checkpoint import load_checkpoint, save_checkpoint


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
