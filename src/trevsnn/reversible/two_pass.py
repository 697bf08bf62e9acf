"""What the recurrence asks of a transform F[l,t] that runs twice, and the records it hands over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

#: Parameters and their gradients.
Gradients = list[tuple[Tensor, Tensor]]


class Code(Protocol):
    """A state in fewer bytes, which still holds everything that a view of it needs."""

    @property
    def shape(self) -> torch.Size:
        """``torch.Size``, of the state."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the state."""
        ...

    def __getitem__(self, rows: slice, /) -> Self:
        """The code of some rows of the first axis; modules do not need it."""
        ...

    def decode(self) -> Tensor:
        """A state on which the view has the value and the derivative that it has on the one that was coded; modules do not
        need it."""
        ...

    def seen(self) -> Tensor:
        """g(c), bit for bit, outside autograd."""
        ...

    def pull_back(self, gradient: Tensor) -> Tensor:
        """``(dg/dc)^T gradient``, outside autograd, in memory of its own."""
        ...


@runtime_checkable
class View(Protocol):
    """What modules see of a state, o = g(c), such as the spikes of a neuron. It has nothing to train."""

    def __call__(self, state: Tensor, /) -> Tensor:
        """g(c), of the state's shape, in plain torch operations."""
        ...

    def code(self, state: Tensor, /) -> Code:
        """What is to be kept of a state, so that g and its derivative can be had again."""
        ...


@dataclass(frozen=True)
class Neighbour:
    """A state of any level, or an input, that a transform saw, and where the gradient goes that leads there.

    Attributes:
        value: x[t], or c[i,t], c[j,t-1] or c[l,t-1], or its code.
        adjoint: dL/dvalue so far, to be added to in place, by :meth:`add` or slice by slice; None where nobody asks for it.
        exact: whether it is, to the last bit, what the first pass saw; otherwise it was inverted.
    """

    value: Tensor | Code
    adjoint: Tensor | None
    exact: bool = True

    def decode(self) -> Tensor:
        """The value as a tensor."""
        return self.value if isinstance(self.value, Tensor) else self.value.decode()

    def add(self, gradient: Tensor) -> None:
        """Add to the adjoint, if anybody asks for it."""
        if self.adjoint is not None:
            self.adjoint.add_(gradient)


@runtime_checkable
class TwoPass(Protocol):
    """One transform F[l,t], called under plain autograd, or run in the forward pass without a graph and again in the
    backward pass.

    It is given states, and looks at each through the view that the run has for it, if it has one.
    """

    def parameters(self) -> Iterable[Tensor]:
        """What it is trained by."""
        ...

    def __call__(self, *states: Tensor | None) -> Tensor:
        """F(...) in plain torch operations."""
        ...

    def first_pass(self, *states: Tensor | None) -> tuple[Tensor, SecondPass]:
        """F(...), computed without a graph, and the pass that goes back through it.

        It runs under the caller's autocast, the second pass does not: whatever has to be the same again, autocast, random
        state, batch statistics, training mode, the second pass has to keep.
        """
        ...


class SecondPass(Protocol):
    """The second pass of a transform, which knows how the first one ran."""

    def __call__(self, seen: Sequence[Neighbour | None], adjoint: Tensor, state: Tensor | None) -> Gradients:
        """Compute F once more, and take y[l,t] through it.

        ::

            y[i,t]    += (dF/dc[i,t])^T y[l,t]        by seen[...].add, likewise of c[j,t-1]
            dL/dtheta  = (dF/dtheta)^T y[l,t]         returned
            c[l,t]    -= F                            in place, in state, the first half of the inverse

        Args:
            seen: what F was given, in its order, None where it was given None.
            adjoint: y[l,t] = dL/dc[l,t], of the state's dtype, not to be changed.
            state: c[l,t], or None where it is not to be inverted.

        Returns:
            Parameters and their gradients, the receiver's to change; a parameter may stand there more than once.
        """
        ...


def add_up(totals: dict[Tensor, Tensor], gradients: Gradients) -> None:
    """Add gradients to the totals of their parameters, in place; the first of each becomes the total."""
    for parameter, gradient in gradients:
        totals[parameter] = totals[parameter].add_(gradient) if parameter in totals else gradient
