"""Transforms that no gradient goes through: levels that are not trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from trevsnn.reversible.two_pass import Gradients, Neighbour, SecondPass


class Constant:
    """A transform F[l,t] whose value counts as a constant: ``dF/d... = 0``, for its parameters and for all that it sees.

    A level whose transforms are all of this kind, and whose alphas and initial state ask for no gradient, has no adjoint and no
    backward pass, and of its states is kept what transforms that are trained see of them.

    Args:
        transform: a module, an object with two passes, or a function of states.
    """

    def __init__(self, transform: Callable[..., Tensor]) -> None:
        self.transform = transform

    def parameters(self) -> Iterable[Tensor]:
        """None: what the transform has is not trained."""
        return ()

    @torch.no_grad()
    def __call__(self, *states: Tensor | None) -> Tensor:
        """F(...), without a graph."""
        return self.transform(*states)

    def first_pass(self, *states: Tensor | None) -> tuple[Tensor, SecondPass]:
        """F(...), and a pass back that gives no gradients."""
        return self(*states), no_gradients


def no_gradients(seen: Sequence[Neighbour | None], adjoint: Tensor, state: Tensor | None) -> Gradients:
    """The second pass (:class:`trevsnn.reversible.SecondPass`) of a transform through which nothing goes back."""
    return []


def check_constant_levels(
    transforms: Sequence[Sequence[Any]], alphas: Sequence[Sequence[Any] | None], states: Sequence[Any] | None
) -> None:
    """Raise ValueError where a level is constant in part: at some timesteps, or with alphas or an initial state to train."""
    for level in range(len(transforms[0])):
        kinds = {isinstance(row[level], Constant) for row in transforms}
        if kinds == {False}:
            continue
        if len(kinds) == 2:
            raise ValueError(
                f"level {level} is Constant at some timesteps and trained at others: make it Constant at all, or at none."
            )
        first = 1 if states is None else 0
        others = [row[level] for row in alphas[first:] if row is not None] + ([] if states is None else [states[level]])
        if any(isinstance(tensor, Tensor) and tensor.requires_grad for tensor in others):
            raise ValueError(
                f"level {level} is Constant, but an alpha or its initial state asks for a gradient: detach these, or train it."
            )
