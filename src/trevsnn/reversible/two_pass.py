"""A transform that runs twice: in the forward pass without a graph, and again in the backward pass."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from trevsnn.network.spike import PackedState

#: Parameters and their gradients.
Gradients = list[tuple[Tensor, Tensor]]


def add_up(totals: dict[Tensor, Tensor], found: Gradients) -> None:
    """Add gradients to the totals of their parameters, in place; the first of each becomes the total."""
    for parameter, grad in found:
        totals[parameter] = totals[parameter].add_(grad) if parameter in totals else grad


class TwoPass(Protocol):
    """One transform F[l,t], run in the forward pass without a graph and again in the backward pass."""

    def first_pass(self, below: Tensor, above: Tensor | None) -> tuple[Tensor, Any]:
        """F(below, above), and what the second pass needs to know of this one."""
        ...

    def second_pass(
        self,
        below: Tensor | PackedState,
        above: Tensor | PackedState | None,
        adjoint: Tensor,
        kept: Any,
        below_adjoint: Tensor | None,
        above_adjoint: Tensor | None,
        state: Tensor | None,
    ) -> Gradients:
        """Backpropagate ``adjoint`` through F(below, above).

        Added in place: the gradients of ``below`` and ``above`` to their adjoints, where these are given. Subtracted in
        place: the value F(below, above) from ``state``, where that is given.

        Returns:
            Parameters and their gradients, the receiver's to change; a parameter may stand there more than once.
        """
        ...
