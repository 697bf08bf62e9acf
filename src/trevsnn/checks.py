"""Checks of a config's values: what is wrong in one sentence, as ValueError.

The configs of networks, data and runs share them, so they stand below all three.
"""

from __future__ import annotations

import math


def at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}.")


def at_most(name: str, value: float, most: int) -> None:
    """What no machine can do ends here in a sentence, not later in want of memory. NaN is refused too."""
    if not value <= most:
        raise ValueError(f"{name} is {value}; it must be at most {most:,}.")


def within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie in {low}..{high}.")


def finite_at_least(name: str, value: float, least: float) -> None:
    if not least <= value < math.inf:
        raise ValueError(f"{name} is {value}; it must be a number of at least {least}.")


def choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(str, allowed))}.")


def positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a positive integer.")
