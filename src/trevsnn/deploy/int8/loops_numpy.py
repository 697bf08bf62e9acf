"""What :mod:`trevsnn.deploy.int8.loops_numba` computes, in NumPy's operations: dense and slower, to the same integers.

For machines without Numba. The functions take the same arguments and write to ``out``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]


def _numbers(sums: Array, bias: Array, scale: Array, zero: int) -> NDArray[np.float32]:
    """The code of whole sums less the code of 0."""
    return np.clip(np.rint((sums.astype(np.int32) + bias).astype(np.float32) * scale), -zero, 255 - zero)


def accumulate(
    maps: Array, threshold: Array, rows: Array, weight: Array, bias: Array, scale: Array, zero: int, out: Array
) -> None:
    sums = (maps > threshold).astype(np.float32) @ weight.astype(np.float32)  # exact up to 2^24
    requantise(sums, bias, scale, zero, out)


def requantise(sums: Array, bias: Array, scale: Array, zero: int, out: Array) -> None:
    out[:] = _numbers(sums, bias, scale, zero) + zero


def fired(maps: Array, threshold: Array, out: Array) -> None:
    out[:] = maps > threshold


def quantise(values: Array, step: np.float32, zero: int, out: Array) -> None:
    out[:] = np.clip(np.rint(values / step) + np.float32(zero), 0, 255)


def spikes(potential: Array, threshold: np.float32, out: Array) -> None:
    out[:] = potential >= threshold


def numbers(codes: Array, zero: int, step: np.float32, times: int, potential: Array | None, out: Array) -> None:
    given = (codes.astype(np.float32) - np.float32(zero)) * step
    out[:] = given.repeat(times, 1).repeat(times, 2)[:, : out.shape[1], : out.shape[2]]
    if potential is not None:
        out += potential.reshape(out.shape)


def depthwise(
    maps: Array, threshold: np.float32 | None, from_zero: int, kernel: int, weight: Array, bias: Array, scale: Array,
    zero: int, step: np.float32, potential: Array | None, alpha: Array | None, previous: Array | None, out: Array,
) -> None:  # fmt: skip
    around, (height, width) = kernel // 2, maps.shape[1:3]
    values = maps.astype(np.float32) - np.float32(from_zero) if threshold is None else maps >= threshold
    padded = np.pad(values, ((0, 0), (around, around), (around, around), (0, 0)))
    sums = np.zeros(maps.shape, np.float32)
    for u in range(kernel):
        for v in range(kernel):
            sums += padded[:, u : u + height, v : v + width] * weight[u * kernel + v]
    given, out = _numbers(sums, bias, scale, zero), out.reshape(maps.shape)
    if potential is None:
        out[:] = given + zero
        return
    out[:] = potential.reshape(maps.shape) + given * step
    if alpha is not None and previous is not None:
        out += alpha * previous.reshape(maps.shape)


def columns(
    maps: Array, from_zero: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
    size: tuple[int, int], inputs: int, first: int, out: Array,
) -> None:  # fmt: skip
    (rows, across), channels = kernel, maps.shape[3]
    margins = (0, 0), (padding[0], padding[0]), (padding[1], padding[1]), (0, 0)
    padded = np.pad(maps.astype(np.int16) - from_zero, margins)
    windows_BHWCuv = sliding_window_view(padded, kernel, (1, 2))[:, :: stride[0], :: stride[1]]
    found = windows_BHWCuv.transpose(0, 1, 2, 4, 5, 3).reshape(-1, rows * across * channels)
    out = out.reshape(-1, inputs)
    start = first * size[1]
    out[:, : found.shape[1]] = found[start : start + len(out)]
    out[:, found.shape[1] :] = 0
