"""What a level sees: which states of which levels its transform is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Sees(NamedTuple):
    """The arguments of a level's transforms, in this order: F[l,t](o[i,t] for i in lower, o[j,t-1] for j in upper, o[l,t-1]).

    o is the state, or what a view shows of it. Those of t-1 are None where there is no earlier state.

    Attributes:
        lower: levels i < l, at the same timestep; -1 stands for the input x[t].
        upper: levels j > l, at the timestep before; L, above the top level, stands for nothing and is None always. None of them
            where it is left out.
        own: whether o[l,t-1] is the last argument.

    :func:`trevsnn.reversible.run` refuses with TypeError what is no Sees of tuples, and with ValueError a level of the same
    timestep that is not below l, or one of the timestep before that is not above it. Making one checks nothing.
    """

    lower: tuple[int, ...]
    upper: tuple[int, ...] = ()
    own: bool = False

    def arguments(
        self, level: int, x: Tensor, now: Sequence[Tensor], before: Sequence[Tensor] | None
    ) -> list[Tensor | None]:
        """What F[l,t] is given.

        Args:
            level: l.
            x: x[t].
            now: c[i,t] of the levels below l at least.
            before: c[j,t-1] of all levels, or None.
        """
        lower = [x if i < 0 else now[i] for i in self.lower]
        earlier = (*self.upper, level) if self.own else self.upper
        return lower + [None if before is None or j == len(before) else before[j] for j in earlier]


def adjacent(levels: int) -> list[Sees]:
    """Each level sees the one below at the same timestep and the one above at the timestep before: F(below, above)."""
    return [Sees((level - 1,), (level + 1,)) for level in range(levels)]


def check_sees(sees: Sequence[Sees]) -> None:
    """Raise TypeError or ValueError where a level is to see what is not there yet or not there any more."""
    levels = len(sees)
    for level, seen in enumerate(sees):
        if (
            not isinstance(seen, Sees)
            or not isinstance(seen.lower, tuple | list)
            or not isinstance(seen.upper, tuple | list)
        ):
            raise TypeError(
                f"sees[{level}] is {seen!r}; give Sees(lower, upper, own) with tuples of levels, such as Sees((-1,))."
            )
        if not all(-1 <= i < level for i in seen.lower):
            raise ValueError(
                f"sees[{level}].lower is {tuple(seen.lower)}: at the same timestep a level sees those below it, "
                f"{_range(0, level)}, and the input, -1."
            )
        if not all(level < j <= levels for j in seen.upper):
            raise ValueError(
                f"sees[{level}].upper is {tuple(seen.upper)}: of the timestep before a level sees those above it, "
                f"{_range(level + 1, levels)}, or nothing, {levels}; for its own state set own=True."
            )


def _range(first: int, end: int) -> str:
    return "of which there are none" if first >= end else f"{first}..{end - 1}"
