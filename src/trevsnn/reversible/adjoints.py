"""Gradients on their way back through a recurrence: of states, of inputs, and of parameters that several pieces share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from trevsnn.reversible.memory_owner import owner
from trevsnn.reversible.plan import Plan
from trevsnn.reversible.two_pass import Gradients, add_up


class Adjoints:
    """The adjoints y[l,t] = dL/dc[l,t] of one timestep, one tensor a level, which are changed in place, and the sums of
    the other gradients.

    At piece (l,t) the tensor of level l holds all of y[l,t]: the backward pass has been through everything that c[l,t]
    went into, F[l+1,t], F[l-1,t+1] and alpha[l,t+1].
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._states: Sequence[Tensor] = ()  # for their shapes
        self._levels: list[Tensor | None] = []
        self._inputs: list[Tensor | None] = []
        self._parameters: dict[Tensor, Tensor] = {}
        self._readouts: Sequence[Tensor | None] = ()

    def start(self, states: Sequence[Tensor], last: Sequence[Tensor | None], readouts: Sequence[Tensor | None]) -> None:
        """Begin from the gradients of the last states, where they were given out, and of the readouts."""
        self._states = states
        self._parameters = {}
        self._levels = [None] * self._plan.levels
        self._inputs = [None] * len(self._plan.distinct_inputs)
        for level, grad in enumerate(last):
            if grad is not None:
                self.of(level).copy_(grad)
        self._readouts = readouts

    def of(self, level: int) -> Tensor:
        """y[l,t], to be added to in place."""
        adjoint = self._levels[level]
        if adjoint is None:
            with owner("adjoints"):
                adjoint = self._levels[level] = torch.zeros_like(self._states[level])
        return adjoint

    def of_input(self, t: int) -> Tensor | None:
        """dL/dx[t], to be added to in place; None where it is not wanted."""
        place = self._plan.input_index[t]
        x = self._plan.distinct_inputs[place]
        if x.requires_grad and self._inputs[place] is None:
            with owner("adjoints"):
                self._inputs[place] = torch.zeros_like(x, dtype=self.of(0).dtype)
        return self._inputs[place]

    def add_readouts(self, t: int, level: int, readouts: dict[int, tuple[GradientEdge, Tensor]]) -> None:
        """Add to y[l,t] of the top level the gradients of what was read from it after timestep t."""
        if level < self._plan.levels - 1:
            return
        for place, (at, _) in enumerate(self._plan.readouts):
            grad = self._readouts[place]
            if at == t and grad is not None:
                beginning, value = readouts[place]
                (of_state,) = torch.autograd.grad(value, [beginning], grad, retain_graph=not self._plan.once)
                self.of(level).add_(of_state)

    def collect(self, t: int, level: int, gradients: Gradients) -> list[Tensor | None]:
        """Sum up gradients of parameters in place, and return those of this piece to which no earlier piece adds."""
        with owner("parameter gradients"):
            add_up(self._parameters, gradients)
        first_use = self._plan.first_use
        return [
            self._parameters.pop(parameter, None) if first_use[parameter] == (t, level) else None
            for parameter in self._plan.parameters[t][level]
        ]

    def forget_states(self) -> None:
        """Free what is not to be given out."""
        self._states = ()
        if self._plan.initial is None:
            self._levels = []

    def final(self) -> list[Tensor | None]:
        """The gradients of the distinct inputs and of the initial states."""
        result = self._inputs + (self._levels if self._plan.initial is not None else [])
        self._inputs, self._levels = [], []
        return result
