"""The guard of a training's steps."""

import pytest
import torch

from trevsnn.errors import RunError
from trevsnn.train.guard import StepGuard


def test_a_skipped_step_leaves_buffers_as_they_were():
    layer = torch.nn.BatchNorm2d(2)
    guard = StepGuard(layer, limit=2)
    guard.begin_step()
    layer(torch.full((2, 2, 3, 3), torch.nan))
    assert not torch.isfinite(layer.running_mean).any()
    assert not guard.accept(torch.tensor(torch.inf))
    assert torch.equal(layer.running_mean, torch.zeros(2))
    assert int(layer.num_batches_tracked) == 0
    assert guard.accept(torch.tensor(1.0))
    assert not guard.accept(torch.tensor(torch.nan))
    with pytest.raises(RunError, match="in 2 steps one after the other"):
        guard.accept(torch.tensor(torch.nan))
