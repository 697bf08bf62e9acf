"""Parts of a level."""

import pytest
import torch

from trevsnn.network.blocks import bound_alpha_


def test_every_weight_has_one_name(small_model):
    state = small_model(timesteps=6).state_dict()
    assert len({tensor.data_ptr() for tensor in state.values() if tensor.numel()}) == len(state)


def test_alpha_keeps_away_from_zero_with_its_sign(small_model):
    alpha = torch.nn.Parameter(torch.tensor([0.5, 1e-5, -1e-5, 0.0, -0.7]))
    bound_alpha_(alpha)
    assert alpha.tolist() == pytest.approx([0.5, 1e-3, -1e-3, 1e-3, -0.7])
    model = small_model(in_chans=1)
    stuck = model.levels[0].alphas[0]
    torch.nn.init.zeros_(stuck)
    first, second = (model(torch.randn(2, 1, 8, 8)).square().sum() for _ in range(2))
    assert stuck.flatten().tolist() == pytest.approx([1e-3] * 4)
    (first + second).backward()  # two forward passes before a backward pass
    assert (stuck.grad != 0).all()
