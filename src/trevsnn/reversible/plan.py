"""What one run of the recurrence consists of, and what its backward pass rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trevsnn.reversible.constant import Constant
from trevsnn.reversible.sees import Sees
from trevsnn.reversible.two_pass import TwoPass, View

#: alpha[l,t]; None for 1.
Alpha = Tensor | float | None


class Readout(NamedTuple):
    """A function of one level's state after a timestep.

    Attributes:
        timestep: t.
        function: of c[l,t], under plain autograd; it returns one tensor, and must not change the state in place. Its
            parameters get their gradients from autograd.
        level: l; -1 is the top level.
        seen: give the function what the level's view shows, g(c), in place of c; then a code is all that is kept of c, and
            nothing in ``reversible``, where g's derivative is that on the inverted state.

    :func:`trevsnn.reversible.run` refuses with TypeError a timestep that is no integer and what cannot be called, and with
    ValueError a timestep or a level that there is not. Making one checks nothing.
    """

    timestep: int
    function: Callable[[Tensor], Tensor]
    level: int = -1
    seen: bool = False

    def read(self, state: Tensor) -> Tensor:
        """What the function makes of the state, or of what is seen of it.

        Raises:
            TypeError: it gives no tensor.
            ValueError: it changes the state in place.
        """
        if torch.compiler.is_compiling() or state.is_inference():  # without versions
            return self.function(state)
        version = state._version
        value = self.function(state)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"the readout after timestep {self.timestep} returned a {type(value).__name__}; it returns one tensor."
            )
        if state._version != version:
            raise ValueError(
                f"the readout after timestep {self.timestep} changes the state in place, which other timesteps need: have it "
                "work on state.clone()."
            )
        return value


@dataclass
class Plan:
    """The arguments of :func:`trevsnn.reversible.run`, and what follows from them.

    Attributes:
        transforms: F[l,t] as ``transforms[t][l]``.
        alphas: alpha[l,t] as ``alphas[t][l]``; a row may be None where there is no earlier state; an alpha is None where it
            is 1.
        inputs: x[t].
        initial: c[l,-1], or None.
        sees: of each level.
        views: of each level's state.
        exact: whether the mode is ``exact``, in which states that are seen are kept, or their codes; otherwise it is
            ``reversible``, in which states are inverted.
        readouts: with levels from 0 on.
        once: whether backward runs once, and the last states are not wanted.
        read_alpha: gives the numbers of an alpha, float64.
    """

    transforms: Sequence[Sequence[TwoPass]]
    alphas: Sequence[Sequence[Alpha] | None]
    inputs: Sequence[Tensor]
    initial: Sequence[Tensor] | None
    sees: Sequence[Sees]
    views: Sequence[View | None]
    exact: bool
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
        self.first_use: dict[Tensor, tuple[int, int]] = {}
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
            any(isinstance(a, Tensor) and a.requires_grad for a in self._alphas_of(level))
            for level in range(self.levels)
        ]

        #: By level, whether it is not trained (:class:`Constant`).
        self.constant = [isinstance(f, Constant) for f in self.transforms[0]]
        #: Where the backward pass ends.
        self.lowest_trained = self.constant.index(False) if False in self.constant else 0
        trained = [(level, sees) for level, sees in enumerate(self.sees) if not self.constant[level]]
        self._seen_at_once = {i for _, sees in trained for i in sees.lower}
        self._seen_later = {j for _, sees in trained for j in sees.upper}
        self._seen_later |= {level for level, sees in trained if sees.own}

    def _alphas_of(self, level: int) -> list[Alpha]:
        return [row[level] for row in self.alphas[self.first_alpha :] if row is not None]

    def alpha(self, t: int, level: int) -> Alpha:
        """alpha[l,t]; None where it is 1 or there is no earlier state."""
        return None if t < self.first_alpha else alpha_row(self.alphas, t)[level]

    def numbers(self, level: int) -> list[NDArray[np.float64]]:
        """The numbers of a level's alphas of the timesteps from 1 on."""
        return [
            self.read_alpha(alpha) if isinstance(alpha, Tensor) else np.asarray(1.0 if alpha is None else float(alpha))
            for alpha in self.alpha_columns[level]
        ]

    def inverts(self, level: int) -> bool:
        """Whether a level's float states are rebuilt one from the next."""
        if self.constant[level]:
            return False
        view = self.views[level]
        keeps_state = view is None or getattr(view, "keeps_state", False)
        return not self.exact or (self.alpha_needs_grad[level] and not keeps_state)

    def is_seen(self, level: int, t: int) -> bool:
        """Whether any transform that is trained is given c[l,t]."""
        return level in self._seen_at_once or (level in self._seen_later and t + 1 < self.timesteps)


def is_zero(alpha: Alpha) -> bool:
    """Whether an alpha is the number 0: nothing of the state before is left, not even what is not finite."""
    return isinstance(alpha, int | float) and alpha == 0


def alpha_row(alphas: Sequence[Sequence[Alpha] | None], t: int) -> Sequence[Alpha]:
    """The alphas of timestep t. Raises ValueError where they are missing."""
    row = alphas[t]
    if row is None:
        raise ValueError(f"alphas[{t}] is None, but timestep {t} has an earlier state to multiply.")
    return row
