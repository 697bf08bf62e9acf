"""The recurrence on modules that have nothing to do with the network."""

import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from recurrences import Smooth, assert_close, build, everything

from trevsnn.network.spike import SPIKE, spike
from trevsnn.reversible import Sees, run


@settings(max_examples=25)
@given(
    timesteps=st.integers(1, 7),
    levels=st.integers(1, 4),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    initial=st.booleans(),
    mode=st.sampled_from(["exact", "reversible"]),
    seed=st.integers(0, 99),
)
def test_any_float_modules_in_every_mode(device, timesteps, levels, dtype, initial, mode, seed):
    assume(dtype == torch.float32 or device.type != "mps")
    case = build(Smooth, timesteps, levels, dtype, initial=initial, seed=seed, alpha=0.9, device=device)
    outputs, reference = everything(*case, backprop="autograd")
    got, grads = everything(*case, backprop=mode)
    assert all(torch.equal(a, b) for a, b in zip(got, outputs, strict=True))
    double = dtype == torch.float64
    assert_close(grads, reference, 1e-11 if double else 1e-3 if mode == "reversible" else 1e-5)


@settings(max_examples=15)
@given(timesteps=st.integers(1, 12), levels=st.integers(2, 4), alpha=st.floats(-0.9, 0.9), seed=st.integers(0, 99))
def test_codes_are_enough_for_spiking_modules(device64, timesteps, levels, alpha, seed):
    case = build(Smooth, timesteps, levels, torch.float64, alpha=alpha, seed=seed, initial=True, device=device64)
    outputs, reference = everything(*case, backprop="autograd", views=[SPIKE] * levels)
    got, grads = everything(*case, backprop="exact", views=[SPIKE] * levels)
    assert all(torch.equal(a, b) for a, b in zip(got, outputs, strict=True))
    assert_close(grads, reference, 1e-12)


def test_backward_twice_with_retain_graph_adds_the_same_again(device64):
    transforms, alphas, inputs, _ = build(Smooth, 3, 2, torch.float64, device=device64)
    last, read = run(transforms, alphas, inputs, views=[SPIKE] * 2, readouts=[(1, lambda c: spike(c).mean(1))])
    loss = last[-1].square().sum() + read[0].sum()
    loss.backward(retain_graph=True)
    once = transforms[0][0].below.weight.grad.clone()
    loss.backward()
    assert torch.equal(transforms[0][0].below.weight.grad, 2 * once)


def test_frozen_parameters_and_alphas_get_no_gradient_and_the_others_the_same(device64):
    case = build(Smooth, 4, 3, torch.float64, device=device64)
    case[2][0].requires_grad_(False)
    for row in case[1]:
        for alpha in row:
            alpha.requires_grad_(False)
    case[0][1][1].requires_grad_(False)
    found = {}
    for mode in ("autograd", "exact"):
        last, _ = run(*case, backprop=mode, views=[SPIKE] * 3)
        for row in case[0]:
            for module in row:
                module.zero_grad()
        last[-1].square().sum().backward()
        found[mode] = [p.grad for row in case[0] for m in row for p in m.parameters()]
    for a, b in zip(found["exact"], found["autograd"], strict=True):
        assert (a is None or a.norm() == 0) if b is None else torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_alphas_that_are_numbers_are_those_numbers_in_any_precision(device64):
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        transforms, _, inputs, _ = build(Smooth, 4, 2, torch.float64, device=device64)
        transforms, inputs = [[f.to(dtype) for f in row] for row in transforms], [x.to(dtype) for x in inputs]
        for row in transforms:
            for f in row:
                f.eval()
        found = [run(transforms, [[1 / 3, 0.7]] * 4, inputs, backprop=mode)[0] for mode in ("autograd", "exact")]
        assert all(torch.equal(a, b) and b.dtype == dtype for a, b in zip(*found, strict=True))


def test_a_top_level_that_nobody_sees_and_no_alpha_wants_is_not_kept(device64):
    transforms, _, inputs, _ = build(Smooth, 4, 2, torch.float64, device=device64)
    found = {}
    for mode in ("autograd", "exact"):
        readouts = [(t, lambda c: c.square().mean()) for t in range(4)]
        _, read = run(
            transforms, [[0.5, 0.0]] * 4, inputs, views=[SPIKE, None], sees=[Sees((-1,), (2,)), Sees((0,), (2,))],
            backprop=mode, readouts=readouts, once=True,
        )  # fmt: skip
        parameters = [p for row in transforms for f in row for p in (*f.below.parameters(), *f.norm.parameters())]
        found[mode] = torch.autograd.grad(sum(read), parameters)
    assert_close(found["exact"], found["autograd"], 1e-12)


def test_weights_changed_between_the_passes_are_noticed(device64):
    transforms, alphas, inputs, _ = build(Smooth, 3, 2, torch.float64, device=device64)
    last, _ = run(transforms, alphas, inputs)
    with torch.no_grad():
        transforms[0][0].below.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        last[-1].sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, a, x: (t, a, x, None, "fast"), "must be one of exact, reversible, autograd"),
        (lambda t, a, x: ([], a, x, None, "exact"), "T rows of L modules"),
        (lambda t, a, x: ([t[0], t[1][:1], t[2]], a, x, None, "exact"), r"lengths \[1, 2\]"),
        (lambda t, a, x: (t, a[:2], x, None, "exact"), "alphas has 2 entries for 3"),
        (lambda t, a, x: (t, a, x[:1], None, "exact"), "inputs has 1 entries for 3"),
        (lambda t, a, x: (t, a, x, x[:1], "exact"), "states has 1 entries for 2"),
        (lambda t, a, x: (t, [None, None, a[2]], x, None, "autograd"), r"alphas\[1\] is None"),
    ],
)
def test_what_does_not_fit_together_is_said(change, message):
    transforms, alphas, inputs, _ = build(Smooth, 3, 2, torch.float64)
    transforms, alphas, inputs, states, mode = change(transforms, alphas, inputs)
    with pytest.raises(ValueError, match=message):
        run(transforms, alphas, inputs, states, backprop=mode)


def test_a_readout_outside_the_steps_is_refused():
    transforms, alphas, inputs, _ = build(Smooth, 3, 2, torch.float64)
    with pytest.raises(ValueError, match=r"must lie in 0\.\.2"):
        run(transforms, alphas, inputs, readouts=[(3, torch.sum)])


def test_nothing_warns(device):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        everything(*build(Smooth, 3, 2, torch.float32, device=device), backprop="exact")
