"""The spike-driven convolution as Numba compiles it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from trevsnn.spike import THRESHOLD


@njit(parallel=True, fastmath=True, cache=True)
def accumulate(
    maps: Any, weight: Any, bias: Any, stride_y: int, stride_x: int, padding_y: int, padding_x: int, out: Any
) -> None:
    """``out[b, y, x] = bias + sum of weight[i, j, c] over taps (i, j) and channels c that fire``."""
    batch, height, width, channels = maps.shape
    rows, columns = weight.shape[:2]
    _, out_height, out_width, out_channels = out.shape
    threshold = maps.dtype.type(THRESHOLD)
    for pixel in prange(batch * out_height * out_width):
        b, place = pixel // (out_height * out_width), pixel % (out_height * out_width)
        y, x = place // out_width, place % out_width
        active = np.empty(channels, np.int32)
        total = out[b, y, x]
        for o in range(out_channels):
            total[o] = bias[o]
        for i in range(rows):
            for j in range(columns):
                v, u = y * stride_y + i - padding_y, x * stride_x + j - padding_x
                if v < 0 or v >= height or u < 0 or u >= width:
                    continue
                count = 0
                for c in range(channels):  # without a branch: half of them would be guessed wrong
                    active[count] = c
                    count += maps[b, v, u, c] >= threshold
                # Four rows at a time, so that the total is read and written a quarter as often.
                k = 0
                while k + 4 <= count:
                    row0, row1 = weight[i, j, active[k]], weight[i, j, active[k + 1]]
                    row2, row3 = weight[i, j, active[k + 2]], weight[i, j, active[k + 3]]
                    for o in range(out_channels):
                        total[o] += (row0[o] + row1[o]) + (row2[o] + row3[o])
                    k += 4
                while k < count:
                    row0 = weight[i, j, active[k]]
                    for o in range(out_channels):
                        total[o] += row0[o]
                    k += 1
