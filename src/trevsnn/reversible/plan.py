"""What one run of the recurrence consists of, and what its backward pass rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from trevsnn.reversible.two_pass import Code, TwoPass

#: A timestep, and a function of the top level's state after it.
Readout = tuple[int, Callable[[Tensor], Tensor]]


@dataclass
class Plan:
    """The arguments of :func:`trevsnn.reversible.run`, and what follows from them.

    Attributes:
        transforms: F[l,t] as ``transforms[t][l]``.
        alphas: alpha[l,t] as ``alphas[t][l]``; a row is None where there is no earlier state.
        inputs: x[t].
        initial: c[l,-1], or None.
        exact: whether codes of the states are kept; otherwise states are only inverted.
        code: from a state to its code; None keeps the state.
        readouts: of the top level.
        once: whether backward runs once, and the last states are not wanted.
        read_alpha: gives the numbers of an alpha, float64.
    """

    transforms: Sequence[Sequence[TwoPass]]
    alphas: Sequence[Sequence[Tensor] | None]
    inputs: Sequence[Tensor]
    initial: Sequence[Tensor] | None
    exact: bool
    code: Callable[[Tensor], Code] | None
    readouts: Sequence[Readout]
    once: bool
    read_alpha: Callable[[Tensor], NDArray[np.float64]]

    def __post_init__(self) -> None:
        self.timesteps, self.levels = len(self.transforms), len(self.transforms[0])
        self.first_alpha = 1 if self.initial is None else 0  # the first timestep with an earlier state
        self.distinct_inputs = list(dict.fromkeys(self.inputs))
        position = {id(x): i for i, x in enumerate(self.distinct_inputs)}
        self.input_index = [position[id(x)] for x in self.inputs]
        #: Of each transform, to be trained.
        self.parameters = [[[p for p in f.parameters() if p.requires_grad] for f in row] for row in self.transforms]
        #: Where each parameter is used first, which is where the backward pass comes last.
        self.first_use: dict[nn.Parameter, tuple[int, int]] = {}
        for t, row in enumerate(self.parameters):
            for level, own in enumerate(row):
                for parameter in own:
                    self.first_use.setdefault(parameter, (t, level))
        #: By level, its alphas of the timesteps from 1 on, through which states are inverted.
        self.alpha_columns = [
            [row[level] for row in self.alphas[1:] if row is not None] for level in range(self.levels)
        ]
        #: By level, whether the float states are wanted, for the gradients of its alphas.
        self.alpha_needs_grad = [
            any(row[level].requires_grad for row in self.alphas[self.first_alpha :] if row is not None)
            for level in range(self.levels)
        ]

    def alpha(self, t: int, level: int) -> Tensor | None:
        """alpha[l,t], or None where there is no earlier state."""
        if t < self.first_alpha:
            return None
        return alpha_row(self.alphas, t)[level]

    def has_above(self, t: int, level: int) -> bool:
        """Whether F[l,t] is given c[l+1,t-1]."""
        return t >= self.first_alpha and level + 1 < self.levels


def alpha_row(alphas: Sequence[Sequence[Tensor] | None], t: int) -> Sequence[Tensor]:
    """The alphas of timestep t. Raises ValueError where they are missing."""
    row = alphas[t]
    if row is None:
        raise ValueError(f"alphas[{t}] is None, but timestep {t} has an earlier state to multiply.")
    return row
