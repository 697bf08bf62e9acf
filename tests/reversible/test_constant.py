"""Levels that are not trained."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrences import Smooth, assert_close, build

from trevsnn.network.spike import SPIKE
from trevsnn.reversible import Constant, run


def trained_alphas(alphas, constant):
    return [[a.detach() if level in constant else a for level, a in enumerate(row)] for row in alphas]


def by_hand(transforms, alphas, inputs, constant, view):
    """The recurrence in plain operations; the states of constant levels are computed without a graph."""
    states = None
    for t, row in enumerate(transforms):
        current = []
        for level, f in enumerate(row):
            below = inputs[t] if level == 0 else view(current[level - 1])
            above = None if states is None or level + 1 == len(row) else view(states[level + 1])
            with torch.set_grad_enabled(level not in constant):
                state = f(below, above)
                current.append(state if states is None else alphas[t][level] * states[level] + state)
        states = current
    return states


def gradients(transforms, alphas, inputs, last, constant):
    loss = sum((level + 1) * c.square().sum() for level, c in enumerate(last) if level not in constant)
    own = [p for row in transforms for level, f in enumerate(row) for p in f.parameters() if level not in constant]
    wanted = [*dict.fromkeys(own), *(a for row in alphas[1:] for a in row if a.requires_grad), inputs[0]]
    return [
        torch.zeros_like(w) if g is None else g
        for w, g in zip(wanted, torch.autograd.grad(loss, wanted, allow_unused=True), strict=True)
    ]


@settings(max_examples=20)
@given(
    timesteps=st.integers(1, 5),
    constant=st.sets(st.integers(0, 3), max_size=3),
    spikes=st.booleans(),
    mode=st.sampled_from(["exact", "reversible", "autograd"]),
    seed=st.integers(0, 99),
)
def test_gradients_are_those_of_levels_computed_without_a_graph(device64, timesteps, constant, spikes, mode, seed):
    transforms, alphas, inputs, _ = build(Smooth, timesteps, 4, torch.float64, alpha=0.9, seed=seed, device=device64)
    for row in transforms[1:]:
        row[0].below = torch.nn.Linear(6, 6, bias=False).to(inputs[0])  # its own, or level 0 could not be told apart
    alphas = trained_alphas(alphas, constant)
    view = SPIKE if spikes else lambda state: state
    states = by_hand(transforms, alphas, inputs, constant, view)
    reference = gradients(transforms, alphas, inputs, states, constant)
    wrapped = [[Constant(f) if level in constant else f for level, f in enumerate(row)] for row in transforms]
    for row in transforms:
        for f in row:
            f.norm.reset_running_stats()
    last, _ = run(wrapped, alphas, inputs, backprop=mode, views=[SPIKE if spikes else None] * 4)
    assert all(torch.allclose(a, b, rtol=1e-13, atol=1e-14) for a, b in zip(last, states, strict=True))
    assert_close(gradients(transforms, alphas, inputs, last, constant), reference, 1e-10)


@pytest.mark.parametrize("mode", ["exact", "autograd"])
def test_what_is_read_of_a_constant_level_trains_its_reader_alone(device64, mode):
    transforms, alphas, inputs, _ = build(Smooth, 3, 3, torch.float64, device=device64)
    alphas = trained_alphas(alphas, {0})
    wrapped = [[Constant(row[0]), *row[1:]] for row in transforms]
    reader = torch.nn.Linear(6, 1).to(inputs[0])
    _, (read,) = run(wrapped, alphas, inputs, backprop=mode, readouts=[(2, reader, 0)], once=True)
    read.sum().backward()
    assert reader.weight.grad is not None
    assert reader.weight.grad.norm() > 0
    assert inputs[0].grad is None or inputs[0].grad.norm() == 0
    assert all(p.grad is None or p.grad.norm() == 0 for row in transforms for f in row for p in f.parameters())


def test_a_level_is_constant_altogether_or_not_at_all(device64):
    transforms, alphas, inputs, _ = build(Smooth, 3, 2, torch.float64, device=device64)
    with pytest.raises(ValueError, match="level 0 is Constant, but an alpha"):
        run([[Constant(row[0]), row[1]] for row in transforms], alphas, inputs)
    with pytest.raises(ValueError, match="level 1 is Constant at some timesteps"):
        run([[transforms[0][0], Constant(transforms[0][1])], *transforms[1:]], alphas, inputs)
