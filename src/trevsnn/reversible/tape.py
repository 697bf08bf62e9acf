"""What the forward pass of a recurrence leaves for its backward pass, and where the backward pass stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from trevsnn.network.spike import PackedState
from trevsnn.reversible.inversion import alpha_values, check_reversible, plan_anchors
from trevsnn.reversible.memory_owner import hand_over, owner
from trevsnn.reversible.replay import read_out
from trevsnn.reversible.two_pass import Gradients, TwoPass, add_up

#: A timestep, and a function of the top level's state after it.
Readout = tuple[int, Callable[[Tensor], Tensor]]


@dataclass
class Plan:
    """What the recurrence runs, and what its backward pass rests on: see :func:`trevsnn.reversible.run`."""

    passes: Sequence[Sequence[TwoPass]]
    parameters: Sequence[Sequence[list[nn.Parameter]]]  # to be trained, of each transform
    alphas: Sequence[Sequence[Tensor] | None]
    inputs: Sequence[Tensor]
    initial: Sequence[Tensor] | None
    exact: bool
    code: Callable[[Tensor], PackedState] | None
    readouts: Sequence[Readout]
    once: bool

    def __post_init__(self) -> None:
        self.timesteps, self.levels = len(self.passes), len(self.passes[0])
        self.first_alpha = 1 if self.initial is None else 0  # the first timestep with an earlier state
        self.distinct_inputs = list(dict.fromkeys(self.inputs))
        position = {id(x): i for i, x in enumerate(self.distinct_inputs)}
        self.input_index = [position[id(x)] for x in self.inputs]
        #: Where each parameter is used first, which is where the backward pass comes last.
        self.first_use: dict[nn.Parameter, tuple[int, int]] = {}
        for step, row in enumerate(self.parameters):
            for level, own in enumerate(row):
                for parameter in own:
                    self.first_use.setdefault(parameter, (step, level))
        #: By level, its alphas of the steps from 1 on, through which states are inverted.
        self.alpha_columns = [
            [row[level] for row in self.alphas[1:] if row is not None] for level in range(self.levels)
        ]
        #: By level, whether the float states are wanted, for the gradients of its alphas.
        self.alpha_needs_grad = [
            any(row[level].requires_grad for row in self.alphas[self.first_alpha :] if row is not None)
            for level in range(self.levels)
        ]


class Tape:
    """States, codes, anchors and adjoints of one run, each changed or freed as soon as nothing needs it any more."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.states: list[Tensor] = list(plan.initial or ())  # by level, the latest
        self.readouts: dict[int, tuple[GradientEdge, Tensor]] = {}  # by place among the plan's
        self._seen: dict[tuple[int, int], Tensor | PackedState] = {}
        self._anchors: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}
        self._anchor_masks: list[list[np.ndarray]] = []
        self._adjoints: list[Tensor | None] = []
        self._input_adjoints: list[Tensor | None] = []
        self._owned: list[bool] = []  # states that may be overwritten
        self._parameter_grads: dict[Tensor, Tensor] = {}
        self._read_grads: Sequence[Tensor | None] = ()

    # Forward: level after level of step after step.

    def neighbours(self, step: int, level: int) -> tuple[Tensor, Tensor | None]:
        """c[l-1,t], or x[t], and c[l+1,t-1]."""
        below = self.plan.inputs[step] if level == 0 else self.states[level - 1]
        return below, self.states[level + 1] if self._has_above(step, level) else None

    def advance(self, level: int, value: Tensor, alpha: Tensor | None) -> None:
        """Go on to ``alpha * c[l,t-1] + value``."""
        if alpha is None:
            self.states.append(value)
            return
        scaled = alpha * self.states[level]
        self.states[level] = scaled.add_(value) if scaled.dtype == value.dtype else scaled + value

    def end_step(self, step: int) -> None:
        """Read out, and store of the states after ``step`` what the mode calls for."""
        plan = self.plan
        for place, (at, function) in enumerate(plan.readouts):
            if at == step:
                self.readouts[place] = read_out(function, self.states[-1])
        if not plan.exact or step == plan.timesteps - 1:
            return
        if not self._anchor_masks:  # the dtype of the states is known only now
            self._anchor_masks = [
                plan_anchors([alpha_values(alpha) for alpha in column], state.dtype)
                for column, state in zip(plan.alpha_columns, self.states, strict=True)
            ]
        for level, state in enumerate(self.states):
            if plan.code is None:
                self._seen[step, level] = state
                continue
            if plan.levels > 1:
                with owner("codes"):
                    self._seen[step, level] = plan.code(state)
            mask = self._anchor_masks[level][step]
            if plan.alpha_needs_grad[level] and mask.any():
                with owner("anchors"):
                    self._anchors[step, level] = (state, None) if mask.all() else _masked(state, mask)
                    hand_over(self._anchors[step, level][0], "anchors")

    # Backward: the same way back.

    def start_backward(self, last: list[Tensor], grads: Sequence[Tensor | None]) -> None:
        """Take the gradients of what the run gave out: the last states, if it did, and the readouts."""
        plan = self.plan
        if not plan.once:
            self.states = last
        if not self.states:
            raise RuntimeError(
                "the backward pass ran a second time over one forward pass, but its states were freed as it went: run "
                "the forward pass again, or use backprop='autograd' with retain_graph=True."
            )
        if not plan.exact and plan.timesteps > 1:
            for level, column in enumerate(plan.alpha_columns):
                check_reversible(level, [alpha_values(alpha) for alpha in column], self.states[level].dtype)
        self._owned = [plan.once] * plan.levels
        self._parameter_grads = {}
        self._adjoints = [None] * plan.levels
        self._input_adjoints = [None] * len(plan.distinct_inputs)
        for level, grad in enumerate(grads[: len(last)]):
            if grad is not None:
                self.adjoint(level).copy_(grad)
        self._read_grads = [*grads[len(last) :]]

    def begin_piece(self, step: int, level: int) -> None:
        """Add the gradients of what was read from the top level after ``step``."""
        if level < self.plan.levels - 1:
            return
        for place, (at, _) in enumerate(self.plan.readouts):
            grad = self._read_grads[place]
            if at == step and grad is not None:
                edge, value = self.readouts[place]
                found = torch.autograd.grad(value, [edge], grad, retain_graph=not self.plan.once)
                self.adjoint(level).add_(found[0])

    def adjoint(self, level: int) -> Tensor:
        """dL/dc[l,t], to be added to in place."""
        adjoint = self._adjoints[level]
        if adjoint is None:
            with owner("adjoints"):
                adjoint = self._adjoints[level] = torch.zeros_like(self.states[level])
        return adjoint

    def seen_neighbours(self, step: int, level: int) -> tuple[Tensor | PackedState, Tensor | PackedState | None]:
        """c[l-1,t], or x[t], and c[l+1,t-1], as the transform saw them: exactly, or inverted in ``reversible``."""
        below = self.plan.inputs[step].detach() if level == 0 else self._as_seen(step, level - 1)
        return below, self._as_seen(step - 1, level + 1) if self._has_above(step, level) else None

    def neighbour_adjoints(self, step: int, level: int) -> tuple[Tensor | None, Tensor | None]:
        """The adjoints of :meth:`seen_neighbours`, to be added to in place; None where it is not wanted."""
        below = self._input_adjoint(step) if level == 0 else self.adjoint(level - 1)
        return below, self.adjoint(level + 1) if self._has_above(step, level) else None

    def state_to_invert(self, step: int, level: int) -> Tensor | None:
        """c[l,t], to be overwritten by c[l,t] - F, if c[l,t-1] is to be rebuilt from it."""
        if not self._inverts(step, level):
            return None
        if not self._owned[level]:
            with owner("states"):
                self.states[level], self._owned[level] = self.states[level].clone(), True
        return self.states[level]

    def retreat(self, step: int, level: int, alpha: Tensor) -> Tensor:
        """Go back to c[l,t-1]: ``(c[l,t] - F) / alpha``, or what was kept of it. Not exact where nobody wants it."""
        if self._inverts(step, level):
            self.states[level].div_(alpha)
        if step == 0:
            assert self.plan.initial is not None
            return self.plan.initial[level]
        if self.plan.exact and self.plan.code is None:
            kept = self._seen[step - 1, level]
            assert isinstance(kept, Tensor)
            self.states[level], self._owned[level] = kept, False
        elif (step - 1, level) in self._anchors:
            values, mask = self._anchors[step - 1, level]
            if mask is None:
                self.states[level], self._owned[level] = values, self.plan.once
                hand_over(values, "states")
            else:
                self.states[level].masked_scatter_(mask, values)
        return self.states[level]

    def collect(self, step: int, level: int, found: Gradients) -> list[Tensor | None]:
        """Sum up gradients of parameters in place, and give those of this piece out that no earlier piece adds to."""
        with owner("parameter gradients"):
            add_up(self._parameter_grads, found)
        first = self.plan.first_use
        return [
            self._parameter_grads.pop(parameter, None) if first[parameter] == (step, level) else None
            for parameter in self.plan.parameters[step][level]
        ]

    def end_piece(self, step: int, level: int) -> None:
        """Free what no earlier piece needs."""
        if self.plan.once:
            self._seen.pop((step, level), None)
            self._anchors.pop((step, level), None)
        if step == 0 and level == 0:
            # Whoever holds the loss holds this tape: nothing large stays on it but what is still to be given out.
            if self.plan.initial is None:
                self._adjoints = []
            if self.plan.once:
                self.states, self.plan.inputs, self.plan.distinct_inputs = [], [], []

    def final_adjoints(self) -> list[Tensor | None]:
        """The gradients of distinct inputs and initial states."""
        found = self._input_adjoints + (self._adjoints if self.plan.initial is not None else [])
        self._input_adjoints, self._adjoints = [], []
        return found

    def _has_above(self, step: int, level: int) -> bool:
        return step >= self.plan.first_alpha and level + 1 < self.plan.levels

    def _as_seen(self, step: int, level: int) -> Tensor | PackedState:
        if step < 0:
            assert self.plan.initial is not None
            return self.plan.initial[level].detach()
        exact = self.plan.exact and step < self.plan.timesteps - 1
        return self._seen[step, level] if exact else self.states[level]

    def _input_adjoint(self, step: int) -> Tensor | None:
        place = self.plan.input_index[step]
        x = self.plan.distinct_inputs[place]
        if x.requires_grad and self._input_adjoints[place] is None:
            with owner("adjoints"):
                self._input_adjoints[place] = torch.zeros_like(x, dtype=self.adjoint(0).dtype)
        return self._input_adjoints[place]

    def _inverts(self, step: int, level: int) -> bool:
        """Whether c[l,t-1] is rebuilt from c[l,t]."""
        if step == 0:
            return False
        if not self.plan.exact:
            return True
        whole = (step - 1, level) in self._anchors and self._anchors[step - 1, level][1] is None
        return self.plan.code is not None and self.plan.alpha_needs_grad[level] and not whole


def _masked(state: Tensor, mask: np.ndarray) -> tuple[Tensor, Tensor]:
    elements = torch.from_numpy(mask).to(state.device)
    return state.masked_select(elements), elements
