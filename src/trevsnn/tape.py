"""What the forward pass of a recurrence leaves for its backward pass, besides its inputs and the last states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from trevsnn.inversion import alpha_values, plan_anchors
from trevsnn.owner import owner
from trevsnn.precision import Precision
from trevsnn.replay import TwoPass
from trevsnn.spike import PackedState

#: A timestep, and a function of the top level's state after it.
Readout = tuple[int, Callable[[Tensor], Tensor]]


@dataclass
class Plan:
    """What the recurrence runs: everything of a recurrence that is not a tensor to differentiate."""

    transforms: Sequence[Sequence[nn.Module]]
    input_index: list[int]  # position among the distinct inputs, for each timestep
    has_states: bool
    parameters: list[nn.Parameter]
    exact: bool
    code: Callable[[Tensor], PackedState] | None
    readouts: Sequence[Readout]
    passes: Callable[[nn.Module, Precision], TwoPass]
    once: bool

    def __post_init__(self) -> None:
        self.timesteps, self.levels = len(self.transforms), len(self.transforms[0])
        self.first_alpha = 0 if self.has_states else 1  # the first timestep with an earlier state

    def split(self, values: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        """Values in the order of apply's tensors as: distinct inputs, states, alphas[t], parameters."""
        rest = iter(values)
        inputs = [next(rest) for _ in range(max(self.input_index) + 1)]
        states = [next(rest) for _ in range(self.levels if self.has_states else 0)]
        alphas: list[Any] = [None] * self.first_alpha
        alphas += [[next(rest) for _ in range(self.levels)] for _ in range(self.first_alpha, self.timesteps)]
        return inputs, states, alphas, list(rest)


class Tape:
    """What the forward pass leaves for the backward pass besides its inputs."""

    def __init__(self, plan: Plan, alphas: list[Any], alphas_need_grad: list[Any]) -> None:
        self.plan = plan
        self.alpha_needs_grad = [
            any(row is not None and row[level] for row in alphas_need_grad) for level in range(plan.levels)
        ]
        self.seen: dict[tuple[int, int], Tensor | PackedState] = {}
        self.anchors: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}
        self.anchor_masks: list[list[np.ndarray]] = []
        self._columns = [[alpha_values(a) for a in column] for column in zip(*alphas[1:], strict=True)]
        self.kept: dict[tuple[int, int], Any] = {}
        self.readouts: dict[int, tuple[GradientEdge, Tensor]] = {}
        self.last: list[Tensor] | None = None

    def remember(self, step: int, level: int, transform: TwoPass) -> Callable[[Tensor, Tensor | None], Tensor]:
        """The first pass of ``transform``, noting what its second one will need."""

        def call(below: Tensor, above: Tensor | None) -> Tensor:
            value, self.kept[step, level] = transform.first_pass(below, above)
            return value

        return call

    def keep(self, step: int, states: list[Tensor]) -> None:
        """Store of the states after ``step`` what the mode calls for; the last ones are stored by the caller."""
        if not self.plan.exact or step == self.plan.timesteps - 1:
            return
        if not self.anchor_masks:  # the dtype of the states is known only now
            self.anchor_masks = [plan_anchors(c, s.dtype) for c, s in zip(self._columns, states, strict=True)]
        for level, state in enumerate(states):
            if self.plan.code is None:
                self.seen[step, level] = state
                continue
            if self.plan.levels > 1:
                with owner("codes"):
                    self.seen[step, level] = self.plan.code(state)
            mask = self.anchor_masks[level][step]
            if self.alpha_needs_grad[level] and mask.any():
                with owner("anchors"):
                    self.anchors[step, level] = (state, None) if mask.all() else _masked(state, mask)

    def inverts(self, step: int, level: int) -> bool:
        """Whether the backward pass rebuilds the state of ``level`` before ``step`` from the one after it."""
        if not self.plan.exact:
            return True
        if self.plan.code is None or not self.alpha_needs_grad[level]:
            return False
        _, mask = self.anchors.get((step - 1, level), (None, ...))
        return mask is not None  # a state kept whole needs no inversion

    def restore(self, step: int, level: int, state: Tensor) -> Tensor:
        """The state after ``step``: the one kept, or ``state``, inverted, with its anchored elements put in."""
        if self.plan.exact and self.plan.code is None:
            kept = self.seen[step, level]
            assert isinstance(kept, Tensor)
            return kept
        if (step, level) not in self.anchors:
            return state
        values, mask = self.anchors[step, level]
        if mask is None:  # the next inversion overwrites what it starts from
            return values if self.plan.once else values.clone()
        return state.masked_scatter_(mask, values)

    def take_last(self) -> list[Tensor]:
        """The last states, to be overwritten."""
        last, self.last = self.last, None
        if last is None:
            raise RuntimeError(
                "the backward pass ran a second time over one forward pass, but its states were freed as it went: run "
                "the forward pass again, or use backprop='autograd' with retain_graph=True."
            )
        return last

    def forget(self, step: int) -> None:
        """Free what was kept after ``step``."""
        for level in range(self.plan.levels):
            self.seen.pop((step, level), None)
            self.anchors.pop((step, level), None)


def _masked(state: Tensor, mask: np.ndarray) -> tuple[Tensor, Tensor]:
    elements = torch.from_numpy(mask).to(state.device)
    return state.masked_select(elements), elements
