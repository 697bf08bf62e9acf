"""What the forward pass of a recurrence keeps of its states, and how the backward pass gets back to them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import GradientEdge

from trevsnn.reversible.adjoints import Adjoints
from trevsnn.reversible.inversion import check_reversible, plan_anchors
from trevsnn.reversible.memory_owner import hand_over, owner
from trevsnn.reversible.plan import Plan
from trevsnn.reversible.replay import read_out
from trevsnn.reversible.two_pass import Code, Neighbour


class Tape:
    """States, codes and anchors of one run, each changed or freed as soon as nothing needs it any more.

    Attributes:
        states: c[l,t] by level, of the timestep where the forward, then the backward pass stands.
        adjoints: y[l,t] of the same timestep, in the backward pass.
        readouts: by their place in the plan, the beginning of each one's graph, and its value.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.states: list[Tensor] = list(plan.initial or ())
        self.adjoints = Adjoints(plan)
        self.readouts: dict[int, tuple[GradientEdge, Tensor]] = {}
        self._seen: dict[tuple[int, int], Tensor | Code] = {}  # by (t, l)
        self._anchors: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}  # values, and where they stand
        self._anchor_masks: list[list[NDArray[np.bool_]]] = []
        self._owned: list[bool] = []  # states that may be overwritten

    # Forward: level after level, timestep after timestep.

    def neighbours(self, t: int, level: int) -> tuple[Tensor, Tensor | None]:
        """c[l-1,t], or x[t], and c[l+1,t-1]."""
        below = self.plan.inputs[t] if level == 0 else self.states[level - 1]
        return below, self.states[level + 1] if self.plan.has_above(t, level) else None

    def advance(self, level: int, value: Tensor, alpha: Tensor | None) -> None:
        """Go on to ``c[l,t] = alpha[l,t] * c[l,t-1] + F``, given the value of F."""
        if alpha is None:
            self.states.append(value)
            return
        scaled = alpha * self.states[level]
        self.states[level] = scaled.add_(value) if scaled.dtype == value.dtype else scaled + value

    def end_timestep(self, t: int) -> None:
        """Read out, and keep of the states what the mode calls for."""
        plan = self.plan
        for place, (at, function) in enumerate(plan.readouts):
            if at == t:
                self.readouts[place] = read_out(function, self.states[-1])
        if not plan.exact or t == plan.timesteps - 1:
            return
        if not self._anchor_masks:  # the dtype of the states is known only now
            self._anchor_masks = [
                plan_anchors([plan.read_alpha(alpha) for alpha in column], state.dtype)
                for column, state in zip(plan.alpha_columns, self.states, strict=True)
            ]
        for level, state in enumerate(self.states):
            if plan.code is None:
                self._seen[t, level] = state
                continue
            if plan.levels > 1:
                with owner("codes"):
                    self._seen[t, level] = plan.code(state)
            mask = self._anchor_masks[level][t]
            if plan.alpha_needs_grad[level] and mask.any():
                with owner("anchors"):
                    self._anchors[t, level] = (state, None) if mask.all() else _masked(state, mask)
                    hand_over(self._anchors[t, level][0], "anchors")

    # Backward: the same way back.

    def start_backward(self, last: list[Tensor], grads: tuple[Tensor | None, ...]) -> None:
        """Begin from the last states, where the run gave them out, and the gradients of them and of the readouts.

        Raises:
            ReversibilityError: ``reversible`` would lose too much.
            RuntimeError: it ran before, with ``once``.
        """
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
                check_reversible(level, [plan.read_alpha(alpha) for alpha in column], self.states[level].dtype)
        self._owned = [plan.once] * plan.levels
        self.adjoints.start(self.states, grads[: len(last)], grads[len(last) :])

    def seen(self, t: int, level: int) -> tuple[Neighbour, Neighbour | None]:
        """c[l-1,t], or x[t], and c[l+1,t-1] as F[l,t] saw them, exactly or, in ``reversible``, inverted; each with
        where its gradient goes."""
        adjoints = self.adjoints
        if level == 0:
            below = Neighbour(self.plan.inputs[t].detach(), adjoints.of_input(t))
        else:
            below = Neighbour(self._as_seen(t, level - 1), adjoints.of(level - 1))
        if not self.plan.has_above(t, level):
            return below, None
        return below, Neighbour(self._as_seen(t - 1, level + 1), adjoints.of(level + 1))

    def state_to_invert(self, t: int, level: int) -> Tensor | None:
        """c[l,t], to be overwritten by c[l,t] - F, if c[l,t-1] is to be rebuilt from it."""
        if not self._inverts(t, level):
            return None
        if not self._owned[level]:
            with owner("states"):
                self.states[level], self._owned[level] = self.states[level].clone(), True
        return self.states[level]

    def retreat(self, t: int, level: int, alpha: Tensor) -> Tensor:
        """Go back to ``c[l,t-1] = (c[l,t] - F) / alpha[l,t]``, where F is subtracted already, or to what was kept of c[l,t-1].
        Where no alpha wants it, it is not c[l,t-1]."""
        if self._inverts(t, level):
            self.states[level].div_(alpha)
        if t == 0:
            assert self.plan.initial is not None
            return self.plan.initial[level]
        if self.plan.exact and self.plan.code is None:
            kept = self._seen[t - 1, level]
            assert isinstance(kept, Tensor)
            self.states[level], self._owned[level] = kept, False
        elif (t - 1, level) in self._anchors:
            values, mask = self._anchors[t - 1, level]
            if mask is None:
                self.states[level], self._owned[level] = values, self.plan.once
                hand_over(values, "states")
            else:
                self.states[level].masked_scatter_(mask, values)
        return self.states[level]

    def end_piece(self, t: int, level: int) -> None:
        """Free what no earlier piece needs."""
        if self.plan.once:
            self._seen.pop((t, level), None)
            self._anchors.pop((t, level), None)
        if t == 0 and level == 0:
            # Whoever holds the loss holds this tape: nothing large stays on it but what is still to be given out.
            self.adjoints.forget_states()
            if self.plan.once:
                self.states, self.plan.inputs, self.plan.distinct_inputs = [], [], []

    def _as_seen(self, t: int, level: int) -> Tensor | Code:
        if t < 0:
            assert self.plan.initial is not None
            return self.plan.initial[level].detach()
        exact = self.plan.exact and t < self.plan.timesteps - 1
        return self._seen[t, level] if exact else self.states[level]

    def _inverts(self, t: int, level: int) -> bool:
        """Whether c[l,t-1] is rebuilt from c[l,t]."""
        if t == 0:
            return False
        if not self.plan.exact:
            return True
        whole = (t - 1, level) in self._anchors and self._anchors[t - 1, level][1] is None
        return self.plan.code is not None and self.plan.alpha_needs_grad[level] and not whole


def _masked(state: Tensor, mask: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    elements = torch.from_numpy(mask).to(state.device)
    return state.masked_select(elements), elements
