"""The naive twin of :mod:`trevsnn.deploy.int8.loops_numba`: every function again, dense, in NumPy's own operations.

Tests compare the two, and it runs where Numba is not installed. Arguments, equations and results are those of the function
of the same name there, to the last bit; ``out`` is written.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from trevsnn.deploy.int8.maps import Array


def _centred(sums: Array, bias: Array, scale: Array, zero: int) -> NDArray[np.float32]:
    """``code - zero`` of whole sums."""
    return np.clip(np.rint((sums.astype(np.int32) + bias).astype(np.float32) * scale), -zero, 255 - zero)


def accumulate(
    maps: Array, threshold: Array, rows: Array, weight: Array, bias: Array, scale: Array, zero: int, out: Array
) -> None:
    sums = (maps > threshold).astype(np.float32) @ weight.astype(np.float32)  # exact up to 2^24
    requantise(sums, bias, scale, zero, out)


def requantise(sums: Array, bias: Array, scale: Array, zero: int, out: Array) -> None:
    out[:] = _centred(sums, bias, scale, zero) + zero


def binarise(maps: Array, threshold: Array, out: Array) -> None:
    out[:] = maps > threshold


def quantise(values: Array, scale: np.float32, zero: int, out: Array) -> None:
    out[:] = np.clip(np.rint(values / scale) + np.float32(zero), 0, 255)


def spikes(potential: Array, threshold: np.float32, out: Array) -> None:
    out[:] = potential >= threshold


def dequantise(codes: Array, zero: int, scale: np.float32, repeats: int, potential: Array | None, out: Array) -> None:
    numbers = (codes.astype(np.float32) - np.float32(zero)) * scale
    out[:] = numbers.repeat(repeats, 1).repeat(repeats, 2)[:, : out.shape[1], : out.shape[2]]
    if potential is not None:
        out += potential.reshape(out.shape)


def depthwise(
    maps: Array, threshold: np.float32 | None, x_zero: int, kernel: int, weight: Array, bias: Array, scale: Array,
    y_zero: int, y_scale: np.float32, potential: Array | None, alpha: Array | None, previous: Array | None, out: Array,
) -> None:  # fmt: skip
    around, (height, width) = kernel // 2, maps.shape[1:3]
    x = maps.astype(np.float32) - np.float32(x_zero) if threshold is None else maps >= threshold
    padded = np.pad(x, ((0, 0), (around, around), (around, around), (0, 0)))
    sums = np.zeros(maps.shape, np.float32)
    for u in range(kernel):
        for v in range(kernel):
            sums += padded[:, u : u + height, v : v + width] * weight[u * kernel + v]
    centred, out = _centred(sums, bias, scale, y_zero), out.reshape(maps.shape)
    if potential is None:
        out[:] = centred + y_zero
        return
    out[:] = potential.reshape(maps.shape) + centred * y_scale
    if alpha is not None and previous is not None:
        out += alpha * previous.reshape(maps.shape)


def im2col(
    maps: Array, x_zero: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
    size: tuple[int, int], inputs: int, first: int, out: Array,
) -> None:  # fmt: skip
    channels = maps.shape[3]
    margins = (0, 0), (padding[0], padding[0]), (padding[1], padding[1]), (0, 0)
    padded = np.pad(maps.astype(np.int16) - x_zero, margins)
    windows_BHWCuv = sliding_window_view(padded, kernel, (1, 2))[:, :: stride[0], :: stride[1]]
    rows = windows_BHWCuv.transpose(0, 1, 2, 4, 5, 3).reshape(-1, kernel[0] * kernel[1] * channels)
    out = out.reshape(-1, inputs)
    start = first * size[1]
    out[:, : rows.shape[1]] = rows[start : start + len(out)]
    out[:, rows.shape[1] :] = 0
