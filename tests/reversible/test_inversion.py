"""The error that inverting gathers, and what is done about it."""

import warnings

import numpy as np
import pytest
import torch
from recurrences import Smooth, assert_close, build, everything

from trevsnn.network.spike import SPIKE
from trevsnn.reversible import run
from trevsnn.reversible.inversion import ReversibilityError, inversion_error, plan_anchors, read_alpha


def test_inversion_error_bounds_the_error_seen(device):
    torch.manual_seed(0)
    alphas = [torch.empty(64).uniform_(0.3, 0.9).to(device) for _ in range(9)]
    terms = [torch.randn(64).to(device) for _ in range(10)]
    states = [terms[0]]
    for alpha, term in zip(alphas, terms[1:], strict=True):
        states.append(alpha * states[-1] + term)
    largest = torch.stack(states).abs().max(0).values.cpu().double()
    bound, state = 0.0, states[-1]
    for step in reversed(range(9)):
        state = (state - terms[step + 1]) / alphas[step]
        bound = inversion_error(bound, read_alpha(alphas[step]), torch.float32)
        assert ((state - states[step]).abs().cpu().double() <= torch.from_numpy(bound) * largest).all()


def test_anchors_are_where_the_bound_would_fail():
    near_half = [np.full(3, 0.5)] * 31
    masks = plan_anchors(near_half, torch.float32)
    assert [i for i, mask in enumerate(masks) if mask.any()] == [1, 7, 13, 19, 25]
    one_small = plan_anchors([np.array([0.5, 1e-3])] * 3, torch.float32)
    assert [mask.tolist() for mask in one_small] == [[False, True]] * 3
    assert not any(mask.any() for mask in plan_anchors([np.ones(3)] * 15, torch.float64))


def test_reversible_refuses_where_its_bound_fails_and_says_why(device):
    transforms, alphas, inputs, _ = build(Smooth, 16, 2, torch.float32, alpha=0.5, device=device)
    last, _ = run(transforms, alphas, inputs, backprop="reversible")
    with pytest.raises(ReversibilityError, match=r"inverting 15 steps in float32 .* use backprop='exact'"):
        last[-1].sum().backward()


def test_a_tiny_alpha_leaves_exact_exact(device64):
    case = build(Smooth, 6, 3, torch.float64, device=device64)
    with torch.no_grad():
        for row in case[1]:
            for alpha in row:
                alpha[::2] = 1e-3
    _, reference = everything(*case, backprop="autograd", views=[SPIKE] * 3)
    _, grads = everything(*case, backprop="exact", views=[SPIKE] * 3)
    assert_close(grads, reference, 1e-12)


@pytest.mark.parametrize("view", [None, SPIKE])
def test_an_alpha_of_zero_is_never_inverted(device64, view):
    """What it multiplied is lost: ``exact`` keeps it, ``reversible`` refuses."""
    case = build(Smooth, 4, 2, torch.float64, device=device64)
    with torch.no_grad():
        for row in case[1]:
            for alpha in row:
                alpha[2] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, reference = everything(*case, backprop="autograd", views=[view] * 2)
        _, grads = everything(*case, backprop="exact", views=[view] * 2)
    assert_close(grads, reference, 1e-12)
    last, _ = run(*case, backprop="reversible")
    with pytest.raises(ReversibilityError, match=r"divides by \|alpha\| down to 0"):
        last[-1].sum().backward()
