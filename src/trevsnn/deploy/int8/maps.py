"""Maps of the spike-driven engine, (B, H, W, C), and what is done with them element by element.

A map holds codes, uint8, or potentials, float32. Its channels are zero-padded to a multiple of 32: with elements that stand
for 0, which of codes is their zero point.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trevsnn.deploy.int8 import loops

LANES = 32  # of the compiled loops: they compute so many channels at once

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Array = NDArray[Any]


def pad_to_lanes(values: Array, axis: int = -1, value: int = 0) -> Array:
    """An array padded at the end of an axis with one value, to a multiple of 32 elements, contiguous."""
    widths = [(0, 0)] * values.ndim
    widths[axis] = (0, -values.shape[axis] % LANES)
    return np.ascontiguousarray(np.pad(values, widths, constant_values=value))


def check_map(values: Array, like: type, channels: int | None = None) -> None:
    """Check a map before a compiled loop reads it by address.

    Args:
        values: the map.
        like: type of its elements, ``np.uint8`` or ``np.float32``.
        channels: that it has; None for any multiple of ``LANES``.

    Raises:
        ValueError: it is another.
    """
    fits = values.ndim == 4 and (values.shape[3] % LANES == 0 if channels is None else values.shape[3] == channels)
    if values.dtype != like or not fits or not values.flags.c_contiguous:
        raise ValueError(f"a map is {values.dtype} {values.shape}, which does not fit the operator that takes it")


def channels_last(x: Array) -> Array:
    """(..., C, H, W) to (..., H, W, C), contiguous."""
    return np.ascontiguousarray(np.moveaxis(x, -3, -1))


def quantise(scale: np.float32, zero: int, values: Floats) -> Codes:
    """``round(values / scale) + zero``, limited to 0..255, halves to even."""
    out = np.empty(values.shape, np.uint8)
    loops.chosen().quantise(values.reshape(-1), scale, zero, out.reshape(-1))
    return out


def spike_codes(threshold: np.float32, potential: Floats) -> Codes:
    """``s(v) = 1 if v >= threshold else 0``."""
    out = np.empty(potential.shape, np.uint8)
    loops.chosen().spikes(potential.reshape(-1), threshold, out.reshape(-1))
    return out


def dequantise(zero: int, scale: np.float32, repeats: int, size: tuple[int, int] | None, *maps: Array) -> Floats:
    """``scale * (codes - zero)``, upsampled by repeating every pixel, added to a potential where there is one.

    Args:
        zero, scale: the codes' zero point and scale.
        repeats: how often every pixel stands in each direction.
        size: H and W of the result, where that is less than all pixels; None for all.
        maps: the codes, or a potential of the result's size and the codes.

    Raises:
        ValueError: they do not fit together.
    """
    *potential, codes = maps
    check_map(codes, np.uint8)
    batch, height, width, channels = codes.shape
    rows, columns = size or (repeats * height, repeats * width)
    if not 0 <= rows <= repeats * height or not 0 <= columns <= repeats * width:
        raise ValueError(f"maps of {height} x {width}, {repeats} times as large, are to be {rows} x {columns}")
    out = np.empty((batch, rows, columns, channels), np.float32)
    if potential and (potential[0].dtype != out.dtype or potential[0].shape != out.shape):
        raise ValueError(f"a potential is {potential[0].shape}, and what is added to it {out.shape}")
    loops.chosen().dequantise(codes, zero, scale, repeats, potential[0].reshape(-1) if potential else None, out)
    return out
