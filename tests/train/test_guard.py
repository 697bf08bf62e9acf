"""The guard of a training's steps and firing rates."""

import pytest
import torch

from trevsnn.errors import RunError
from trevsnn.train.guard import StepGuard, rate_warnings


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


def test_silent_and_saturated_levels_are_named():
    living = [0.3, 0.1, 0.2]
    assert rate_warnings([[0.2, 0.01, 0.9], living]) == []
    low, hidden, high = rate_warnings([[0.005, 0.1, 0.2], [0.3, 0.3, 0.004], [0.95, 0.1, 0.2]])
    assert low.startswith("level 0 fires at 0.5%, under 1%")
    assert high.startswith("level 2 fires at 95.0%, over 90%")
    assert hidden.startswith("level 1's hidden layer 2 fires at 0.4%, under 1%")
