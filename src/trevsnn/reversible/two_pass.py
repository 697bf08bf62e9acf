"""What the recurrence asks of a transform F[l,t] that runs twice, and the records it hands over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor, nn

#: Parameters and their gradients.
Gradients = list[tuple[Tensor, Tensor]]


class Code(Protocol):
    """A state in fewer bytes, which still holds everything a transform looks at."""

    @property
    def shape(self) -> torch.Size:
        """Of the state."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the state."""
        ...

    def __getitem__(self, rows: slice, /) -> Self:
        """The code of some rows of the first axis."""
        ...

    def decode(self) -> Tensor:
        """A state on which the transform has the value and the gradients that it has on the one that was coded."""
        ...


@dataclass(frozen=True)
class Neighbour:
    """What a transform saw of the level below or above it, and where the gradient goes that leads there.

    Attributes:
        value: c[l-1,t], x[t] or c[l+1,t-1], or its code.
        adjoint: dL/dvalue so far, to be added to in place, by :meth:`add` or slice by slice; None where nobody asks for it.
    """

    value: Tensor | Code
    adjoint: Tensor | None

    def decode(self) -> Tensor:
        """The value as a tensor."""
        return self.value if isinstance(self.value, Tensor) else self.value.decode()

    def add(self, gradient: Tensor) -> None:
        """Add to the adjoint, if anybody asks for it."""
        if self.adjoint is not None:
            self.adjoint.add_(gradient)


class TwoPass(Protocol):
    """One transform F[l,t], called under plain autograd, or run in the forward pass without a graph and again in the
    backward pass.
    """

    def parameters(self) -> Iterable[nn.Parameter]:
        """What it is trained by."""
        ...

    def __call__(self, below: Tensor, above: Tensor | None) -> Tensor:
        """F(below, above) in plain torch operations."""
        ...

    def first_pass(self, below: Tensor, above: Tensor | None) -> tuple[Tensor, SecondPass]:
        """F(below, above), computed without a graph, and the pass that goes back through it.

        It runs under the caller's autocast, the second pass does not: whatever has to be the same again, autocast, random
        state, batch statistics, the second pass has to keep.
        """
        ...


class SecondPass(Protocol):
    """The second pass of a transform, which knows how the first one ran."""

    def __call__(self, below: Neighbour, above: Neighbour | None, adjoint: Tensor, state: Tensor | None) -> Gradients:
        """Compute F(below, above) once more, and take y[l,t] through it.

        ::

            y[l-1,t]   += (dF/dbelow)^T y[l,t]        by below.add
            y[l+1,t-1] += (dF/dabove)^T y[l,t]        by above.add
            dL/dtheta   = (dF/dtheta)^T y[l,t]        returned
            c[l,t]     -= F                           in place, in state, the first half of the inverse

        Args:
            below, above: what F saw; ``above`` is None where it had none.
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
