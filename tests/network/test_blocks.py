"""Parts of a level."""

import pytest
import torch

from conftest import gradients, worst
from trevsnn.network.blocks import bounded_alpha


def test_every_weight_has_one_name(small_model):
    state = small_model(timesteps=6).state_dict()
    assert len({tensor.data_ptr() for tensor in state.values() if tensor.numel()}) == len(state)


def test_alpha_keeps_away_from_zero_with_its_sign_and_its_bits():
    nan, inf = float("nan"), float("inf")
    values = [0.5, -0.7, 1e-5, -1e-5, 0.0, -0.0, 1e-3, -1e-3, 0.1 + 2**-20, inf, -inf, nan]
    bound = [0.5, -0.7, 1e-3, -1e-3, 1e-3, 1e-3, 1e-3, -1e-3, 0.1 + 2**-20, inf, -inf, nan]
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        alpha = torch.tensor(values, dtype=dtype, requires_grad=True)
        found = bounded_alpha(alpha)
        assert torch.equal(found.nan_to_num(7), torch.tensor(bound, dtype=dtype).nan_to_num(7))
        found.backward(torch.arange(12, dtype=dtype))
        assert alpha.grad.tolist() == list(range(12))  # of the identity, beyond the bound too


@pytest.mark.parametrize("mode", ["exact", "autograd"])
def test_the_network_leaves_an_alpha_near_zero_as_it_is_and_trains_it(small_model, device, deterministic, mode):
    model = small_model(torch.float64, in_chans=1, backprop=mode)
    stuck, other = model.levels[0].alphas[0], model.levels[0].alphas[1]
    with torch.no_grad():
        stuck.zero_()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64).to(device)
    found = gradients(model, model(x).square().sum())
    assert not stuck.any()
    with torch.no_grad():
        stuck.fill_(1e-3)
    assert worst(found, gradients(model, model(x).square().sum())) == 0
    assert (found["levels.0.alphas.0"] != 0).all()
    with torch.no_grad():
        other.fill_(float("nan"))
        model(x)
    assert other.isnan().all()


def test_an_alpha_that_functional_call_gives_is_not_written_to(small_model, device):
    model = small_model(torch.float64, in_chans=1).eval()
    given = torch.zeros_like(model.levels[0].alphas[0])
    model.set_backprop("autograd")
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64).to(device)
    out = torch.func.functional_call(model, {"levels.0.alphas.0": given}, (x,))
    assert not given.any()
    with torch.no_grad():
        model.levels[0].alphas[0].fill_(1e-3)
    assert torch.equal(out, model(x))
