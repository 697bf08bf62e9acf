"""Slices of the batch, and who is not given any."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from conftest import gradients, worst
from helpers import loss_of
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.network.slicing import sliced_step, slices

CPU = torch.device("cpu")


def test_slices_hold_what_fits_and_one_image_at_least():
    assert slices(7, 100, 300, CPU) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert slices(2, 100, 1, CPU) == [slice(0, 1), slice(1, 2)]
    assert slices(5, 100, None, CPU) == [slice(0, 5)]


def test_slice_bytes_must_be_positive():
    with pytest.raises(ValueError, match="slice_bytes is 0; it must be a positive integer"):
        TRevSNN(TRevSNNConfig(slice_bytes=0))


def says_that_states_are_kept(mode, place=""):
    """Whoever may look at a state's numbers is said, in the mode that keeps codes."""
    keeps = mode == "exact" and place in ("", "below", "above")
    return pytest.warns(UserWarning, match="states of level . are kept themselves") if keeps else nullcontext()


class Batchwise(nn.Module):
    """A module of a user that looks across the batch."""

    def __init__(self, inner, channels):
        super().__init__()
        self.inner, self.norm = inner, nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(self.inner(x))


@pytest.mark.parametrize("mode", ["exact", "autograd"])
def test_a_module_that_looks_across_the_batch_is_given_all_of_it(small_model, device64, mode):
    """Whatever the slices: they are for modules that act on each item alone."""
    x, target = torch.randn(5, 1, 16, 16, dtype=torch.float64).to(device64), torch.randint(5, (5,)).to(device64)
    results = []
    for slice_bytes in (1, 10**9):
        model = small_model(torch.float64, in_chans=1, slice_bytes=slice_bytes, backprop=mode)
        step = model.levels[1].steps[2]
        step.project1 = Batchwise(step.project1, 8).to(device64, torch.float64)
        loss = loss_of(model, x, target)
        grads = gradients(model, loss)
        del grads["levels.1.steps.2.project1.inner.dw2.bias"]  # 0 but for rounding: a norm comes behind it
        results.append((loss, grads, step.project1.norm.running_var))
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-12)
    assert worst(results[0][1], results[1][1]) < 1e-10
    assert torch.allclose(results[0][2], results[1][2], rtol=1e-12)


@pytest.mark.parametrize("mode", ["exact", "reversible", "autograd"])
@pytest.mark.parametrize("place", ["", "below", "above"])
def test_a_hook_on_a_level_s_step_or_link_sees_the_whole_batch(small_model, device, mode, place):
    model = small_model(in_chans=1, slice_bytes=1, backprop=mode)
    module = model.levels[1].steps[2].get_submodule(place)
    batches = []
    module.register_forward_hook(lambda _, args, out: batches.append(len(out)))
    with says_that_states_are_kept(mode):
        model.forward_heads(torch.randn(5, 1, 16, 16, device=device))[-1].sum().backward()
    assert set(batches) == {5}


@pytest.mark.parametrize("mode", ["exact", "reversible", "autograd"])
@pytest.mark.parametrize("place", ["", "below", "above", "expand1.dw1", "project1"])
def test_a_forward_that_somebody_put_onto_a_module_is_the_one_that_runs(small_model, device, mode, place):
    """As accelerate's hooks do."""
    model = small_model(in_chans=1, slice_bytes=1, backprop=mode)
    module = model.levels[1].steps[2].get_submodule(place)
    plain, calls = module.forward, []
    module.forward = lambda *args: (calls.append(1), plain(*args))[1]
    with says_that_states_are_kept(mode, place):
        loss = model.forward_heads(torch.randn(5, 1, 16, 16, device=device))[-1].sum()
    assert calls
    forward = len(calls)
    loss.backward()
    assert len(calls) == (forward if mode == "autograd" else 2 * forward)


@pytest.mark.parametrize("mode", ["exact", "autograd"])
def test_hooks_on_all_modules_see_every_one(small_model, device, mode):
    model = small_model(in_chans=1, slice_bytes=1, backprop=mode)
    seen = set()
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.add(module))
    try:
        with says_that_states_are_kept(mode):
            model.forward_heads(torch.randn(2, 1, 16, 16, device=device))
    finally:
        handle.remove()
    steps = [step for level in model.levels for step in level.steps]
    assert {*steps, *(step.below for step in steps[4:]), *(step.expand1.pw1 for step in steps)} <= seen


def test_slices_are_those_of_the_bare_equation(small_model, device64):
    """LevelStep.forward is F; in slices it is the same to rounding."""
    model = small_model(torch.float64, in_chans=1).eval()
    level = model.levels[1]
    below = torch.randn(5, 4, 16, 16, dtype=torch.float64).to(device64)
    above = torch.randn(5, 8, 4, 4, dtype=torch.float64).to(device64)
    with torch.no_grad():
        whole = level.steps[2](below, [above], level.shared)
        sliced = sliced_step(level.steps[2], level.shared, 1, below, above)
    assert torch.allclose(sliced, whole, rtol=1e-12, atol=1e-13)
