"""What the forward pass of a recurrence keeps of its states, and how the backward pass gets back to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trevsnn.reversible.adjoints import Adjoints
from trevsnn.reversible.inversion import check_reversible, plan_anchors
from trevsnn.reversible.memory_owner import hand_over, owner
from trevsnn.reversible.plan import Alpha, Plan, is_zero
from trevsnn.reversible.two_pass import Code, Neighbour


class Tape:
    """States, codes and anchors of one run, each changed or freed as soon as nothing needs it any more.

    Attributes:
        states: c[l,t] by level, of the timestep where the forward, then the backward pass stands; after the forward pass
            None where no float state is needed.
        adjoints: y[l,t] of the same timestep, in the backward pass.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.states: list[Tensor | None] = list(plan.initial or [None] * plan.levels)
        self.adjoints = Adjoints(plan)
        self.spent = False
        self._seen: dict[tuple[int, int], Tensor | Code] = {}  # by (t, l)
        self._anchors: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}  # values, and where they stand
        self._anchor_masks: dict[int, list[NDArray[np.bool_]]] = {}
        self._owned: list[bool] = []  # states that may be overwritten

    # Forward: level after level, timestep after timestep.

    def state(self, level: int) -> Tensor:
        """c[l,t]."""
        state = self.states[level]
        assert state is not None
        return state

    def arguments(self, t: int, level: int, token: Tensor) -> list[Tensor | None]:
        """What F[l,t] is given; its ``requires_grad`` says whether a gradient will be asked for, and its graph leads, by the
        token, to all that it was computed from."""
        result: list[Tensor | None] = []
        for source in self._sources(t, level):
            if source is None:
                result.append(None)
            elif source[1] < 0:
                result.append(self.plan.inputs[t])
            else:  # levels below are at t already, the others still at t - 1
                with torch.enable_grad():
                    result.append(_Attached.apply(self.state(source[1]), token))
        return result

    def given(self, t: int, level: int) -> list[Tensor]:
        """Inputs and initial states among what makes up c[l,t]."""
        sources = [*self._sources(t, level), (t - 1, level)]
        initial = [] if self.plan.initial is None else [self.plan.initial[s[1]] for s in sources if s and s[0] < 0]
        return [self.plan.inputs[t] for s in sources if s and s[1] < 0] + initial

    def advance(self, level: int, value: Tensor, alpha: Alpha, *, begins: bool) -> None:
        """Go on to ``c[l,t] = alpha[l,t] * c[l,t-1] + F``, given the value of F, or begin with ``c[l,t] = F``."""
        if value.is_complex() or (isinstance(alpha, Tensor) and alpha.is_complex()):
            raise TypeError(
                f"level {level} is complex, which backprop='exact' and 'reversible' do not know: use backprop='autograd'."
            )
        if begins or is_zero(alpha):
            self.states[level] = value
            return
        before = self.state(level)
        if value.shape != before.shape:
            raise ValueError(
                f"the state of level {level} has shape {tuple(before.shape)}, its transform gave {tuple(value.shape)}: a level "
                "keeps its shape."
            )
        if isinstance(alpha, Tensor) and not _broadcasts(alpha.shape, before.shape):
            raise ValueError(
                f"an alpha of level {level} has shape {tuple(alpha.shape)}, which cannot be broadcast to its state, "
                f"{tuple(before.shape)}."
            )
        if alpha is None:
            state = before + value
        else:
            scaled = alpha * before
            state = scaled.add_(value) if scaled.dtype == value.dtype else scaled + value
        self.states[level] = state

    def end_timestep(self, t: int) -> None:
        """Keep of the states what the mode calls for."""
        plan = self.plan
        last = t == plan.timesteps - 1
        for level in range(plan.levels):
            if not (plan.exact or plan.constant[level]):
                continue
            state, view, wanted = self.state(level), plan.views[level], plan.alpha_needs_grad[level]
            if view is None:
                if not last and (wanted or plan.is_seen(level, t)):
                    self._seen[t, level] = state
                continue
            seen, inverts = plan.is_seen(level, t), plan.inverts(level)
            if (seen and not (last and inverts)) or (wanted and not last and not inverts):
                with owner("codes"):
                    self._seen[t, level] = view.code(state)
            if inverts and not last:
                self._keep_anchor(t, level, state)

    def code(self, t: int, level: int) -> Code | None:
        """The code of c[l,t], of the timestep where the forward pass stands: the one that is kept, or another; None where the
        backward pass has the state itself when it comes to it: the last one, or, in ``reversible``, the inverted one."""
        plan, kept, view = self.plan, self._seen.get((t, level)), self.plan.views[level]
        assert view is not None
        if not plan.exact or (t == plan.timesteps - 1 and plan.inverts(level)):
            return None
        if kept is not None and not isinstance(kept, Tensor):
            return kept
        with owner("codes"):
            return view.code(self.state(level))

    def end_forward(self) -> list[Tensor]:
        """The last states, and nothing kept of those that are not needed any more."""
        last, plan = [self.state(level) for level in range(self.plan.levels)], self.plan
        self.adjoints.remember(last)
        needed = [plan.inverts(level) or plan.views[level] is None for level in range(plan.levels)]
        self.states = [state if wanted else None for state, wanted in zip(last, needed, strict=True)]
        return last

    def _keep_anchor(self, t: int, level: int, state: Tensor) -> None:
        if level not in self._anchor_masks:  # the dtype of the states is known only now
            self._anchor_masks[level] = plan_anchors(self.plan.numbers(level), state.dtype)
        mask = self._anchor_masks[level][t]
        if mask.any():
            with owner("anchors"):
                self._anchors[t, level] = (state, None) if mask.all() else _masked(state, mask)
                hand_over(self._anchors[t, level][0], "anchors")

    # Backward: the same way back.

    def start_backward(self, last: list[Tensor | None], grads: tuple[Tensor | None, ...]) -> None:
        """Begin from the last states, where the run gave them out, and their gradients.

        Raises:
            ReversibilityError: ``reversible`` would lose too much.
            RuntimeError: it ran before, with ``once``.
        """
        plan = self.plan
        if self.spent:
            raise RuntimeError(
                "the backward pass ran a second time over one forward pass, but its states were freed as it went: run "
                "the forward pass again, or use backprop='autograd' with retain_graph=True."
            )
        self.spent = plan.once  # even if it does not come to its end
        if not plan.once:  # detached, or this tape and the graph that holds it would keep each other alive
            self.states = [state if state is None else state.detach() for state in last]
        if not plan.exact and plan.timesteps > 1:
            for level in (level for level in range(plan.levels) if not plan.constant[level]):
                check_reversible(level, plan.numbers(level), self.state(level).dtype)
        self._owned = [plan.once] * plan.levels
        self.adjoints.start(grads)

    def seen(self, t: int, level: int) -> list[Neighbour | None]:
        """What F[l,t] saw, exactly or, in ``reversible``, inverted; each with where its gradient goes."""
        adjoints, result = self.adjoints, []
        for source in self._sources(t, level):
            if source is None:
                result.append(None)
            elif source[1] < 0:
                result.append(Neighbour(self.plan.inputs[t].detach(), adjoints.of_input(t)))
            else:
                exact = self.plan.exact or source[0] < 0 or self.plan.constant[source[1]]
                result.append(Neighbour(self._as_seen(*source), self._adjoint_of(source, t, level), exact=exact))
        return result

    def _adjoint_of(self, source: tuple[int, int], t: int, level: int) -> Tensor | None:
        if source == (t - 1, level):
            return self.adjoints.of_own(level)
        return None if self.plan.constant[source[1]] else self.adjoints.of(source[1])

    def state_to_invert(self, t: int, level: int) -> Tensor | None:
        """c[l,t], to be overwritten by c[l,t] - F, if c[l,t-1] is to be rebuilt from it."""
        if not self._inverts(t, level):
            return None
        if not self._owned[level]:
            with owner("states"):
                self.states[level], self._owned[level] = self.state(level).clone(), True
        return self.states[level]

    def retreat(self, t: int, level: int, alpha: Alpha) -> Tensor | None:
        """Go back to ``c[l,t-1] = (c[l,t] - F) / alpha[l,t]``, where F is subtracted already, or to what was kept of c[l,t-1].
        None where no alpha wants it."""
        if self._inverts(t, level) and alpha is not None:
            self.state(level).div_(alpha)
        if t == 0:
            assert self.plan.initial is not None
            return self.plan.initial[level]
        if not self.plan.inverts(level):
            kept = self._seen.get((t - 1, level)) if self.plan.alpha_needs_grad[level] else None
            self.states[level] = kept if kept is None or isinstance(kept, Tensor) else kept.decode()
            self._owned[level] = False
        elif (t - 1, level) in self._anchors:
            values, mask = self._anchors[t - 1, level]
            if mask is None:
                self.states[level], self._owned[level] = values, self.plan.once
                hand_over(values, "states")
            else:
                self.state(level).masked_scatter_(mask, values.to(self.state(level).dtype))
        return self.states[level]

    def end_piece(self, t: int, level: int) -> None:
        """Free what no earlier piece needs."""
        if self.plan.once:
            self._seen.pop((t, level), None)
            self._anchors.pop((t, level), None)
        if t == 0 and level == self.plan.lowest_trained:
            # Whoever holds the loss holds this tape: nothing large stays on it but what is still to be given out.
            self.adjoints.forget_states()
            self.states = []
            if self.plan.once:
                self._seen, self._anchors = {}, {}
                self.plan.inputs, self.plan.distinct_inputs = [], []

    def _sources(self, t: int, level: int) -> list[tuple[int, int] | None]:
        """Timestep and level of what F[l,t] is given, level -1 for the input; None where there is nothing."""
        lower, upper, own = self.plan.sees[level]
        earlier = (*upper, level) if own else upper
        begins = t < self.plan.first_alpha
        return [(t, i) for i in lower] + [None if begins or j == self.plan.levels else (t - 1, j) for j in earlier]

    def _as_seen(self, t: int, level: int) -> Tensor | Code:
        if t < 0:
            assert self.plan.initial is not None
            return self.plan.initial[level].detach()
        return self._seen[t, level] if (t, level) in self._seen else self.state(level)

    def _inverts(self, t: int, level: int) -> bool:
        """Whether c[l,t-1] is rebuilt from c[l,t]."""
        whole = (t - 1, level) in self._anchors and self._anchors[t - 1, level][1] is None
        return t > 0 and self.plan.inverts(level) and not whole


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(to), strict=False))


class _Attached(torch.autograd.Function):
    """A state, on the graph of the recurrence."""

    @staticmethod
    def forward(ctx: Any, state: Tensor, token: Tensor) -> Tensor:
        return state.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        """No gradient goes this way: the second pass adds it to the adjoint."""
        return None, None


def _masked(state: Tensor, mask: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    elements = torch.from_numpy(mask).to(state.device)
    return state.masked_select(elements), elements
