"""The recurrence on modules that have nothing to do with the network."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trevsnn.network.spike import pack, spike
from trevsnn.reversible import run
from trevsnn.reversible.inversion import ReversibilityError, inversion_error, plan_anchors, read_alpha


class Smooth(nn.Module):
    """A transform of float states, with batch statistics and, on demand, dropout."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.below = nn.Linear(width, width, bias=False)  # a bias before the norm would have no gradient
        self.above = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, below, above):
        value = self.norm(self.below(below))
        return self.dropout(torch.tanh(value if above is None else value + self.above(above)))


class Spiking(Smooth):
    """The same on spikes of its states."""

    def forward(self, below, above):
        return super().forward(spike(below), None if above is None else spike(above))


def build(kind, timesteps, levels, dtype, *, initial=False, dropout=0.0, alpha=0.6, seed=0):
    torch.manual_seed(seed)
    transforms = [[kind(6, dropout).to(dtype) for _ in range(levels)] for _ in range(timesteps)]
    for row in transforms[1:]:
        row[0].below = transforms[0][0].below  # shared over time
    alphas = [[nn.Parameter((alpha + 0.1 * torch.randn(6)).to(dtype)) for _ in range(levels)] for _ in range(timesteps)]
    inputs = [torch.randn(8, 6, dtype=dtype, requires_grad=True)] * timesteps  # one map for all steps
    states = [torch.randn(8, 6, dtype=dtype, requires_grad=True) for _ in range(levels)] if initial else None
    return transforms, alphas, inputs, states


def everything(transforms, alphas, inputs, states, **options):
    """Outputs, and gradients of inputs, states, alphas and parameters."""
    readouts = [(len(transforms) - 1, lambda c: spike(c).mean(1)), (0, lambda c: c.mean(1))]
    torch.manual_seed(1)
    last, read = run(transforms, alphas, inputs, states, readouts=readouts, **options)
    loss = sum(c.square().sum() for c in last) + sum(r.pow(3).sum() for r in read)
    parameters = dict.fromkeys(p for row in transforms for m in row for p in m.parameters())
    start = 0 if states else 1
    sources = [*dict.fromkeys(inputs), *(states or []), *(a for row in alphas[start:] for a in row), *parameters]
    grads = torch.autograd.grad(loss, sources, allow_unused=True)
    grads = [torch.zeros_like(s) if g is None else g for s, g in zip(sources, grads, strict=True)]
    return [*last, *read], grads


def assert_close(ours, reference, tolerance):
    for a, b in zip(ours, reference, strict=True):
        assert (a - b).norm() <= tolerance * b.norm().clamp_min(1e-6)


@settings(max_examples=25)
@given(
    timesteps=st.integers(1, 7),
    levels=st.integers(1, 4),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    initial=st.booleans(),
    mode=st.sampled_from(["exact", "reversible"]),
    seed=st.integers(0, 99),
)
def test_any_float_modules_in_every_mode(timesteps, levels, dtype, initial, mode, seed):
    case = build(Smooth, timesteps, levels, dtype, initial=initial, seed=seed, alpha=0.9)
    outputs, reference = everything(*case, backprop="autograd")
    got, grads = everything(*case, backprop=mode)
    assert all(torch.equal(a, b) for a, b in zip(got, outputs, strict=True))
    double = dtype == torch.float64
    assert_close(grads, reference, 1e-11 if double else 1e-3 if mode == "reversible" else 1e-5)


@settings(max_examples=15)
@given(timesteps=st.integers(1, 12), levels=st.integers(2, 4), alpha=st.floats(-0.9, 0.9), seed=st.integers(0, 99))
def test_codes_are_enough_for_spiking_modules(timesteps, levels, alpha, seed):
    case = build(Spiking, timesteps, levels, torch.float64, alpha=alpha, seed=seed, initial=True)
    outputs, reference = everything(*case, backprop="autograd")
    got, grads = everything(*case, backprop="exact", code=pack)
    assert all(torch.equal(a, b) for a, b in zip(got, outputs, strict=True))
    assert_close(grads, reference, 1e-12)


@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_random_state_is_replayed_and_left_as_the_forward_pass_left_it(mode):
    case = build(Smooth, 3, 2, torch.float64, dropout=0.5)
    _, reference = everything(*case, backprop="autograd")
    after = torch.rand(1)
    _, grads = everything(*case, backprop=mode)
    assert torch.equal(torch.rand(1), after)
    assert_close(grads, reference, 1e-12)


@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_autocast_is_replayed(mode):
    case = build(Smooth, 3, 2, torch.float32, alpha=0.9)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, reference = everything(*case, backprop="autograd")
        got, grads = everything(*case, backprop=mode)
    dtypes = []
    handle = case[0][1][0].below.register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        last, _ = run(*case, backprop=mode)
    last[-1].float().square().sum().backward()  # outside autocast, as one does
    handle.remove()
    assert dtypes == [torch.bfloat16] * 6  # shared over three steps, twice
    assert all(torch.equal(a, b) for a, b in zip(got, outputs, strict=True))
    assert_close(grads, reference, 4 * 2**-8)  # bfloat16's unit is 2^-8


@pytest.mark.parametrize("mode", ["exact", "reversible", "autograd"])
def test_batch_statistics_change_once_per_step(mode):
    transforms, alphas, inputs, states = build(Smooth, 3, 2, torch.float64)
    expected = []
    with torch.no_grad():
        run(transforms, alphas, inputs)
        for row in transforms:
            for module in row:
                expected.append([b.clone() for b in module.buffers()])
                module.norm.reset_running_stats()
    everything(transforms, alphas, inputs, states, backprop=mode)
    found = [list(module.buffers()) for row in transforms for module in row]
    assert all(torch.equal(a, b) for f, e in zip(found, expected, strict=True) for a, b in zip(f, e, strict=True))


@pytest.mark.parametrize("mode", ["exact", "reversible", "autograd"])
def test_hooks_on_parameters_see_the_whole_gradient_once(mode):
    transforms, alphas, inputs, _ = build(Smooth, 4, 2, torch.float64)
    shared = transforms[0][0].below.weight
    calls = []
    shared.register_hook(lambda grad: calls.append(grad.clone()))
    last, _ = run(transforms, alphas, inputs, backprop=mode)
    sum(c.sum() for c in last).backward()
    assert len(calls) == 1
    assert torch.equal(calls[0], shared.grad)


def test_backward_twice_with_retain_graph_adds_the_same_again():
    transforms, alphas, inputs, _ = build(Spiking, 3, 2, torch.float64)
    last, read = run(transforms, alphas, inputs, code=pack, readouts=[(1, lambda c: spike(c).mean(1))])
    loss = last[-1].square().sum() + read[0].sum()
    loss.backward(retain_graph=True)
    once = transforms[0][0].below.weight.grad.clone()
    loss.backward()
    assert torch.equal(transforms[0][0].below.weight.grad, 2 * once)


def test_frozen_parameters_and_alphas_get_no_gradient_and_the_others_the_same():
    case = build(Spiking, 4, 3, torch.float64)
    case[2][0].requires_grad_(False)
    for row in case[1]:
        for alpha in row:
            alpha.requires_grad_(False)
    case[0][1][1].requires_grad_(False)
    found = {}
    for mode in ("autograd", "exact"):
        last, _ = run(*case, backprop=mode, code=pack)
        for row in case[0]:
            for module in row:
                module.zero_grad()
        last[-1].square().sum().backward()
        found[mode] = [p.grad for row in case[0] for m in row for p in m.parameters()]
    for a, b in zip(found["exact"], found["autograd"], strict=True):
        assert (a is None or a.norm() == 0) if b is None else torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_weights_changed_between_the_passes_are_noticed():
    transforms, alphas, inputs, _ = build(Smooth, 3, 2, torch.float64)
    last, _ = run(transforms, alphas, inputs)
    with torch.no_grad():
        transforms[0][0].below.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        last[-1].sum().backward()


def test_inversion_error_bounds_the_error_seen():
    torch.manual_seed(0)
    alphas = [torch.empty(64).uniform_(0.3, 0.9) for _ in range(9)]
    terms = [torch.randn(64) for _ in range(10)]
    states = [terms[0]]
    for alpha, term in zip(alphas, terms[1:], strict=True):
        states.append(alpha * states[-1] + term)
    largest = torch.stack(states).abs().max(0).values.double()
    bound, state = 0.0, states[-1]
    for step in reversed(range(9)):
        state = (state - terms[step + 1]) / alphas[step]
        bound = inversion_error(bound, read_alpha(alphas[step]), torch.float32)
        assert ((state - states[step]).abs().double() <= torch.from_numpy(bound) * largest).all()


def test_anchors_are_where_the_bound_would_fail():
    near_half = [np.full(3, 0.5)] * 31
    masks = plan_anchors(near_half, torch.float32)
    assert [i for i, mask in enumerate(masks) if mask.any()] == [1, 7, 13, 19, 25]
    one_small = plan_anchors([np.array([0.5, 1e-3])] * 3, torch.float32)
    assert [mask.tolist() for mask in one_small] == [[False, True]] * 3
    assert not any(mask.any() for mask in plan_anchors([np.ones(3)] * 15, torch.float64))


def test_reversible_refuses_where_its_bound_fails_and_says_why():
    transforms, alphas, inputs, _ = build(Smooth, 16, 2, torch.float32, alpha=0.5)
    last, _ = run(transforms, alphas, inputs, backprop="reversible")
    with pytest.raises(ReversibilityError, match=r"inverting 15 steps in float32 .* use backprop='exact'"):
        last[-1].sum().backward()


def test_a_tiny_alpha_leaves_exact_exact():
    case = build(Spiking, 6, 3, torch.float64)
    with torch.no_grad():
        for row in case[1]:
            for alpha in row:
                alpha[::2] = 1e-3
    _, reference = everything(*case, backprop="autograd")
    _, grads = everything(*case, backprop="exact", code=pack)
    assert_close(grads, reference, 1e-12)


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


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        everything(*build(Smooth, 3, 2, torch.float32), backprop="exact")
