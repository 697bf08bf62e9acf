"""What the forward pass of a recurrence leaves for its backward pass, besides its inputs and the last states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from trevsnn.inversion import plan_anchors


class StateCode(Protocol):
    """A compact form of a state that is all the transforms see of it (see :class:`trevsnn.spike.SpikeCode`)."""

    def encode(self, state: Tensor) -> Any:
        """Return a NamedTuple with the tensor to keep as its first field."""
        ...

    def decode(self, packed: Any) -> Tensor:
        """Return a state on which every transform has the value and gradient it has on the encoded one."""
        ...


@dataclass
class Plan:
    """What the recurrence runs: everything of a recurrence that is not a tensor to differentiate."""

    transforms: Sequence[Sequence[nn.Module]]
    input_index: list[int]  # position among the distinct inputs, for each timestep
    has_states: bool
    parameters: list[nn.Parameter]
    exact: bool
    code: StateCode | None
    readouts: Mapping[int, Callable[[Tensor], Tensor]]

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
    """What the forward pass leaves for the backward pass besides its inputs and the last states.

    Tensors are handed to autograd's own store by ``tensors``; here stay only their places in it.
    """

    def __init__(self, plan: Plan, alphas: list[Any], alphas_need_grad: list[Any]) -> None:
        self.plan, self.alphas, self.alphas_need_grad = plan, alphas, alphas_need_grad
        self.tensors: list[Tensor] = []
        self.codes: dict[tuple[int, int], tuple[int, Any]] = {}
        self.anchors: dict[tuple[int, int], tuple[int, Tensor]] = {}
        self.anchor_masks: list[list[Tensor]] = []
        self.random_states: dict[tuple[int, int], list[Tensor]] = {}
        self.readouts: dict[int, tuple[GradientEdge, Tensor]] = {}

    def inverts(self, level: int) -> bool:
        """Whether the backward pass rebuilds the float states of ``level``."""
        needs_alpha = any(row is not None and row[level] for row in self.alphas_need_grad)
        return not self.plan.exact or (needs_alpha and self.plan.code is not None)

    def keep(self, step: int, states: list[Tensor]) -> None:
        """Store of the states after ``step`` what the mode calls for; the last ones are stored by the caller."""
        if not self.plan.exact or step == self.plan.timesteps - 1:
            return
        if not self.anchor_masks:  # the dtype of the states is known only now
            columns = zip(*self.alphas[1:], strict=True)
            self.anchor_masks = [plan_anchors(list(c), s.dtype) for c, s in zip(columns, states, strict=True)]
        for level, state in enumerate(states):
            if self.plan.code is None:
                self.codes[step, level] = (self._store(state), None)
                continue
            if self.plan.levels > 1:
                packed = self.plan.code.encode(state)
                self.codes[step, level] = (self._store(packed[0]), (type(packed), packed[1:]))
            mask = self.anchor_masks[level][step]
            if self.inverts(level) and mask.any():
                mask = mask.to(state.device)
                kept = state if mask.all() else state.masked_select(mask)
                self.anchors[step, level] = (self._store(kept), mask)

    def seen(self, saved: Sequence[Tensor], step: int, level: int) -> Tensor:
        """The state as the transforms saw it, rebuilt from its code (``exact``, all but the last step)."""
        place, rest = self.codes[step, level]
        if rest is None:
            return saved[place]
        kind, fields = rest
        assert self.plan.code is not None
        return self.plan.code.decode(kind(saved[place], *fields))

    def correct(self, saved: Sequence[Tensor], step: int, level: int, state: Tensor) -> Tensor:
        """Put the anchored elements, if any, into an inverted state."""
        if (step, level) not in self.anchors:
            return state
        place, mask = self.anchors[step, level]
        return saved[place] if mask.all() else state.masked_scatter(mask, saved[place])

    def _store(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1
