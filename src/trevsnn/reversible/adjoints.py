"""Gradients on their way back through a recurrence: of states, of inputs, and of parameters that several pieces share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trevsnn.reversible.memory_owner import owner
from trevsnn.reversible.plan import Alpha, Plan, is_zero
from trevsnn.reversible.two_pass import Gradients, View, add_up


class _Layout(NamedTuple):
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class Adjoints:
    """The adjoints y[l,t] = dL/dc[l,t] of one timestep, one tensor a level, which are changed in place, and the sums of
    the other gradients.

    At piece (l,t) the tensor of level l holds all of y[l,t]: the backward pass has been through everything that c[l,t]
    went into: F[j,t] of levels above and F[i,t+1] of levels below that see it, its own F[l,t+1], and alpha[l,t+1].
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._layouts: list[_Layout] = []  # of the states
        self._levels: list[Tensor | None] = []
        self._own: Tensor | None = None
        self._inputs: list[Tensor | None] = []
        self._parameters: dict[Tensor, Tensor] = {}
        self._readouts: dict[int, list[tuple[int, Tensor, View | None]]] = {}

    def remember(self, states: Sequence[Tensor]) -> None:
        """Take note of what the states look like, so that they may be freed."""
        self._layouts = [
            _Layout(c.shape, torch.empty_like(c, device="meta").stride(), c.dtype, c.device) for c in states
        ]  # fmt: skip

    def start(self, last: Sequence[Tensor | None]) -> None:
        """Begin from the gradients of the last states, where they were given out."""
        self._parameters = {}
        self._levels = [None] * self._plan.levels
        self._inputs = [None] * len(self._plan.distinct_inputs)
        for level, grad in enumerate(last):
            if grad is not None and not self._plan.constant[level]:
                self.of(level).copy_(grad)

    def of(self, level: int) -> Tensor:
        """y[l,t], to be added to in place."""
        adjoint = self._levels[level]
        if adjoint is None:
            adjoint = self._levels[level] = self._zeros(level)
        return adjoint

    def of_own(self, level: int) -> Tensor:
        """What F[l,t] itself adds to y[l,t-1], which cannot be added to while y[l,t] is in use."""
        self._own = self._zeros(level)
        return self._own

    def step_back(self, level: int, alpha: Alpha) -> None:
        """From y[l,t] to ``alpha[l,t] y[l,t]``, and what F[l,t] added, the first terms of y[l,t-1]."""
        adjoint = self.of(level)
        if is_zero(alpha):
            adjoint.zero_()
        elif alpha is not None:
            adjoint.mul_(alpha)
        if self._own is not None:
            adjoint.add_(self._own)
            self._own = None

    def of_input(self, t: int) -> Tensor | None:
        """dL/dx[t], to be added to in place; None where it is not wanted."""
        place = self._plan.input_index[t]
        x = self._plan.distinct_inputs[place]
        if x.requires_grad and self._inputs[place] is None:
            with owner("adjoints"):
                self._inputs[place] = torch.zeros_like(x, dtype=self.of(0).dtype)
        return self._inputs[place]

    def keep_readout(self, t: int, level: int, grad: Tensor, view: View | None = None) -> None:
        """Keep the gradient of what was read from c[l,t], or from g(c[l,t]) of a view g, until the backward pass comes to
        timestep t."""
        self._readouts.setdefault(t, []).append((level, grad, view))

    def add_readouts(self, t: int, states: Sequence[Tensor | None]) -> None:
        """Add to y[l,t] the gradients of what was read from the states c[l,t], which stand there for those read by a view."""
        for level, grad, view in self._readouts.pop(t, []):
            if view is None:
                self.of(level).add_(grad)
            else:
                state = states[level]
                assert state is not None
                self.of(level).add_(view.code(state).pull_back(grad))

    def collect(self, t: int, level: int, gradients: Gradients) -> list[Tensor | None]:
        """Sum up gradients of parameters in place, and return those of this piece to which no earlier piece adds."""
        first_use = self._plan.first_use
        with owner("parameter gradients"):
            add_up(self._parameters, [(p, grad) for p, grad in gradients if p in first_use])
        return [
            self._parameters.pop(parameter, None) if first_use[parameter] == (t, level) else None
            for parameter in self._plan.parameters[t][level]
        ]

    def forget_states(self) -> None:
        """Free what is not to be given out."""
        if self._plan.initial is None:
            self._levels = []

    def final(self) -> list[Tensor | None]:
        """The gradients of the distinct inputs and of the initial states."""
        result = self._inputs + (self._levels if self._plan.initial is not None else [])
        self._inputs, self._levels = [], []
        return result

    def _zeros(self, level: int) -> Tensor:
        shape, stride, dtype, device = self._layouts[level]
        with owner("adjoints"):
            return torch.empty_strided(shape, stride, dtype=dtype, device=device).zero_()
