"""Sizes of pictures and frames in pixels: one number for a square, or height and width."""

from __future__ import annotations

from collections.abc import Sequence

from trevsnn.checks import at_least, at_most

#: In pixels, 1 to 16,384 each: the side of a square, or (height, width).
Size = int | tuple[int, int]

LONGEST = 16_384  # pixels of a side
_OPTIONS = ("--data.image_size", "--data.sensor", "--size")


def plain_size(name: str, size: int | Sequence[int]) -> Size:
    """A size as configs keep it: an integer where it is square, else (height, width).

    Raises:
        ValueError: it is not one or two integers from 1 to ``LONGEST``.
    """
    sides = [size] if isinstance(size, int) else list(size) if isinstance(size, Sequence) else []
    if len(sides) not in (1, 2) or not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise ValueError(f"{name} is {size!r}; it must be the side of a square, or height and width: 64, or [96, 160].")
    for side in sides:
        at_least(name, side, 1)
        at_most(name, side, LONGEST)
    height, width = sides[0], sides[-1]
    return height if height == width else (height, width)


def height_and_width(size: Size) -> tuple[int, int]:
    """(H, W) of a size."""
    return (size, size) if isinstance(size, int) else size


def size_text(size: Size) -> str:
    """A size as it is written, height first: "96 x 160"."""
    height, width = height_and_width(size)
    return f"{height} x {width}"


def join_sizes(arguments: Sequence[str]) -> list[str]:
    """A command line in which a size, or a sensor, of two words, ``--size 96 160``, is one: ``--size [96,160]``.

    Only numbers are joined, so that what follows a size is not taken for a part of it.
    """
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        joined.append(rest.pop(0))
        if joined[-1] in _OPTIONS and len(rest) > 1 and all(word.isdecimal() for word in rest[:2]):
            joined.append(f"[{rest.pop(0)},{rest.pop(0)}]")
    return joined
