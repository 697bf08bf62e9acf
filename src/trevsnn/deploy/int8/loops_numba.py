"""The loops of the spike-driven engine, as Numba compiles them: 8-bit codes, 32-bit sums.

Maps are (B, H, W, C), or (B * H * W, C) for pixels one after the other, contiguous, their channels zero-padded to a
multiple of 32. A sum becomes a code as ONNX defines it for QLinearConv (halves are rounded to even)::

    code = min(max(round((sum + bias) * scale) + zero, 0), 255)

:mod:`trevsnn.deploy.int8.loops_numpy` is the naive twin of every function here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from trevsnn.deploy.int8.maps import LANES
from trevsnn.deploy.int8.vectors import (
    bits_above,
    broadcast,
    cast,
    clamp,
    compress,
    count_ones,
    load,
    multiply_add,
    ones_at_least,
    round_even,
    store,
)

_INPUTS = 16  # inputs compared with their thresholds at once
_CHUNK = 4  # pixels that share their scratch memory; few, so that all threads get equally many
_ROWS = 256  # rows of 8-bit weights whose sum fits 16 bits
_LINES = 4  # lines of a map that a depthwise convolution takes at a time


@njit(inline="always")
def _centred(total: Any, bias: Any, scale: Any, zero: Any, lanes: Any) -> Any:
    """``code - zero`` of sums, float32: ``min(max(round((sum + bias) * scale), -zero), 255 - zero)``."""
    low, high = broadcast(np.float32(-zero), lanes), broadcast(np.float32(255 - zero), lanes)
    return clamp(round_even(cast(total + bias, np.float32) * scale), low, high)


@njit(inline="always")
def _code(total: Any, bias: Any, scale: Any, zero: Any, lanes: Any) -> Any:
    """The code of sums, int32."""
    return cast(_centred(total, bias, scale, zero, lanes), np.int32) + broadcast(np.int32(zero), lanes)


@njit(inline="always")
def _sum_rows(weight: Any, active: Any, count: Any, column: Any, lanes: Any) -> Any:
    """``sum over k < count of weight[active[k] + column : ... + lanes]``, int32.

    Args:
        weight: flat, int8.
        active: where the rows to be added up begin.
        count: how many they are.
        column: of the first lane.
    """
    total = broadcast(np.int32(0), lanes)
    for first in range(0, count, _ROWS):
        part = broadcast(np.int16(0), lanes)
        for k in range(first, min(count, first + _ROWS)):
            part = part + cast(load(weight, active[k] + column, lanes), np.int16)
        total = total + cast(part, np.int32)
    return total


@njit(parallel=True, cache=True)
def accumulate(maps: Any, threshold: Any, rows: Any, weight: Any, bias: Any, scale: Any, zero: int, out: Any) -> None:
    """Codes of ``sum[p, n] = sum of weight[k, n] over the inputs k with maps[p, k] > threshold[k]``, spike-driven.

    For each pixel the inputs that fire are listed, and their weight rows added up: no work for those that do not.

    Args:
        maps: (pixels, K), int8, or int32 or float32 of whole numbers.
        threshold: (K,), of the same type.
        rows: (K,), int32, where each row of the weight begins.
        weight: (K, N), int8.
        bias, scale: (N,), int32 and float32.
        zero: zero point of the codes.
        out: (pixels, N), uint8, is written.
    """
    pixels, inputs = maps.shape
    outputs = len(bias)
    flat, weights, result = maps.reshape(-1), weight.reshape(-1), out.reshape(-1)
    for chunk in prange((pixels + _CHUNK - 1) // _CHUNK):
        active = np.empty(inputs + _INPUTS, np.int32)
        for p in range(chunk * _CHUNK, min(pixels, (chunk + 1) * _CHUNK)):
            count = 0
            for k in range(0, inputs, _INPUTS):
                word = bits_above(load(flat, p * inputs + k, _INPUTS), load(threshold, k, _INPUTS))
                store(active, count, compress(load(rows, k, _INPUTS), word))
                count += count_ones(word)
            o, place = 0, p * outputs
            while o + 128 <= outputs:  # the more columns at once, the fewer times the list is read
                total = _sum_rows(weights, active, count, o, 128)
                store(result, place + o, _code(total, load(bias, o, 128), load(scale, o, 128), zero, 128))
                o += 128
            while o + 64 <= outputs:
                total = _sum_rows(weights, active, count, o, 64)
                store(result, place + o, _code(total, load(bias, o, 64), load(scale, o, 64), zero, 64))
                o += 64
            while o < outputs:
                total = _sum_rows(weights, active, count, o, LANES)
                store(result, place + o, _code(total, load(bias, o, LANES), load(scale, o, LANES), zero, LANES))
                o += LANES


@njit(parallel=True, cache=True)
def requantise(sums: Any, bias: Any, scale: Any, zero: int, out: Any) -> None:
    """Codes of sums, (pixels, N), int32 or float32 of whole numbers; the rest as in :func:`accumulate`."""
    outputs = len(bias)
    flat, result = sums.reshape(-1), out.reshape(-1)
    for p in prange(len(sums)):
        for o in range(0, outputs, LANES):
            total = cast(load(flat, p * outputs + o, LANES), np.int32)
            store(result, p * outputs + o, _code(total, load(bias, o, LANES), load(scale, o, LANES), zero, LANES))


@njit(parallel=True, cache=True)
def binarise(maps: Any, threshold: Any, out: Any) -> None:
    """``maps > threshold`` as 0 and 1, (pixels, K), int8; the rest as in :func:`accumulate`."""
    for p in prange(len(maps)):
        for k in range(maps.shape[1]):
            out[p, k] = maps[p, k] > threshold[k]


@njit(parallel=True, cache=True, error_model="numpy")  # Python's checks every divisor
def quantise(values: Any, scale: Any, zero: int, out: Any) -> None:
    """``code = min(max(round(value / scale) + zero, 0), 255)``, flat arrays, float32 and uint8."""
    for n in prange(len(values)):
        code = np.rint(values[n] / scale) + np.float32(zero)
        out[n] = np.uint8(min(max(code, np.float32(0)), np.float32(255)))


@njit(parallel=True, cache=True)
def spikes(potential: Any, threshold: Any, out: Any) -> None:
    """``s(v) = 1 if v >= threshold else 0``, flat arrays, float32 and uint8."""
    for n in prange(len(potential)):
        out[n] = potential[n] >= threshold


@njit(parallel=True, cache=True)
def dequantise(codes: Any, zero: int, scale: Any, repeats: int, potential: Any, out: Any) -> None:
    """``scale * (code - zero)``, upsampled by repeating every pixel, added to a potential or alone.

    Args:
        codes: (B, H, W, C), uint8.
        zero, scale: the codes' zero point, and their scale, float32.
        repeats: how often every pixel stands in each direction.
        potential: flat, float32, or None.
        out: (B, H', W', C), float32, is written; H' and W' are at most ``repeats`` times H and W.
    """
    batch, height, width, channels = out.shape
    flat, result = codes.reshape(-1), out.reshape(-1)
    for line in prange(batch * height):
        b, y = line // height, line % height
        for x in range(width):
            source = ((b * codes.shape[1] + y // repeats) * codes.shape[2] + x // repeats) * channels
            place = (line * width + x) * channels
            for c in range(0, channels, LANES):
                number = cast(load(flat, source + c, LANES), np.float32) - broadcast(np.float32(zero), LANES)
                number = number * broadcast(scale, LANES)
                if potential is not None:
                    number = load(potential, place + c, LANES) + number
                store(result, place + c, number)


@njit
def _write(
    sums: Any, bias: Any, scale: Any, zero: Any, y_scale: Any, potential: Any, alpha: Any, previous: Any, c: Any,
    place: Any, out: Any,
) -> None:  # fmt: skip
    """Write what :func:`depthwise` computes from the sums of one pixel, channels c to c + 31, at their place of out."""
    total = cast(sums, np.int32)
    if potential is None:
        store(out, place, _code(total, bias, scale, zero, LANES))
    else:
        number = _centred(total, bias, scale, zero, LANES) * broadcast(y_scale, LANES)
        state = load(potential, place, LANES) + number
        if previous is not None:
            state = load(alpha, c, LANES) * load(previous, place, LANES) + state
        store(out, place, state)


@njit(parallel=True, cache=True)
def depthwise(
    maps: Any, threshold: Any, x_zero: int, kernel: int, weight: Any, bias: Any, scale: Any, y_zero: int, y_scale: Any,
    potential: Any, alpha: Any, previous: Any, out: Any,
) -> None:  # fmt: skip
    """A depthwise convolution of stride 1: DW1 of the spikes of a potential, or DW2 with what it is added to.

    With ``sum = sum over the kernel of w * x``, for each channel, and its code, one of::

        out = code                                                                         (no potential)
        out = potential + y_scale * (code - y_zero)                                        (no previous)
        out = alpha * previous + (potential + y_scale * (code - y_zero))

    where ``x`` is ``1 if maps >= threshold else 0``, or ``maps - x_zero`` without a threshold.

    Args:
        maps: (B, H, W, C), potentials in float32, or codes in uint8.
        threshold: float32; None for codes.
        x_zero: zero point of the maps' codes.
        kernel: its height and width, odd; half of it, rounded down, is the padding.
        weight: (kernel ** 2, C), float32, whole numbers.
        bias, scale: (C,), int32 and float32.
        y_zero, y_scale: zero point and scale, float32, of the output's code.
        potential: flat, float32, or None.
        alpha, previous: (C,) and flat, float32, or None.
        out: flat, uint8 or float32, is written.
    """
    batch, height, width, channels = maps.shape
    blocks, chunks = channels // LANES, (height + _LINES - 1) // _LINES
    flat, taps, around = maps.reshape(-1), weight.reshape(-1), kernel // 2
    # Four pixels are computed at once, the last of them beyond the map where its width is no multiple of four.
    block_line = ((width + 3) // 4 * 4 + 2 * around) * LANES
    for task in prange(batch * chunks * blocks):
        c = task % blocks * LANES
        b, top = task // (blocks * chunks), task // blocks % chunks * _LINES
        lines = min(_LINES, height - top)
        # x of LANES channels of these lines and those around them, with zeros around the map.
        block = np.zeros((_LINES + 2 * around) * block_line, np.float32)
        for i in range(max(0, around - top), min(lines + 2 * around, height + around - top)):
            for x in range(width):
                taken = load(flat, ((b * height + top + i - around) * width + x) * channels + c, LANES)
                if threshold is None:
                    number = cast(taken, np.float32) - broadcast(np.float32(x_zero), LANES)
                else:
                    number = ones_at_least(taken, broadcast(threshold, LANES))
                store(block, i * block_line + (x + around) * LANES, number)
        beta, scales, nothing = load(bias, c, LANES), load(scale, c, LANES), broadcast(np.float32(0), LANES)
        for i in range(lines):
            for x in range(0, width, 4):
                t0, t1, t2, t3 = nothing, nothing, nothing, nothing
                for u in range(kernel):
                    for v in range(kernel):
                        w = load(taps, (u * kernel + v) * channels + c, LANES)
                        r = (i + u) * block_line + (x + v) * LANES
                        t0 = multiply_add(load(block, r, LANES), w, t0)
                        t1 = multiply_add(load(block, r + LANES, LANES), w, t1)
                        t2 = multiply_add(load(block, r + 2 * LANES, LANES), w, t2)
                        t3 = multiply_add(load(block, r + 3 * LANES, LANES), w, t3)
                place = ((b * height + top + i) * width + x) * channels + c
                _write(t0, beta, scales, y_zero, y_scale, potential, alpha, previous, c, place, out)
                if x + 1 < width:
                    _write(t1, beta, scales, y_zero, y_scale, potential, alpha, previous, c, place + channels, out)
                if x + 2 < width:
                    _write(t2, beta, scales, y_zero, y_scale, potential, alpha, previous, c, place + 2 * channels, out)
                if x + 3 < width:
                    _write(t3, beta, scales, y_zero, y_scale, potential, alpha, previous, c, place + 3 * channels, out)


@njit(parallel=True, cache=True)
def im2col(
    maps: Any, x_zero: int, kernel: Any, stride: Any, padding: Any, size: Any, inputs: int, first: int, out: Any
) -> None:
    """``maps - x_zero`` under a convolution's kernel, one row for each output pixel, zeros around the map.

    Args:
        maps: (B, H, W, C), uint8, any number of channels.
        x_zero: zero point of the maps' codes.
        kernel, stride, padding: (vertical, horizontal).
        size: of the output: H', W'.
        inputs: K, length of a row, at least kh * kw * C; the rest of it is zero-padded.
        first: line of the output to begin with, counted over the whole batch.
        out: lines * W' * K, flat, int8, is written.
    """
    batch, height, width, channels = maps.shape
    flat = maps.reshape(batch, height, width * channels)
    taps, left = kernel[1] * channels, padding[1] * channels
    padded_line = (width + 2 * padding[1]) * channels + LANES
    for line in prange(len(out) // (size[1] * inputs)):
        b, top = (first + line) // size[0], (first + line) % size[0] * stride[0] - padding[0]
        lines, row = np.zeros(kernel[0] * padded_line, np.int8), np.empty(inputs + LANES, np.int8)
        for i in range(max(0, -top), min(kernel[0], height - top)):
            source, target = flat[b, top + i], lines[i * padded_line + left :]
            for n in range(len(source)):
                target[n] = np.int32(source[n]) - x_zero
        for x in range(size[1]):
            for i in range(kernel[0]):
                for n in range(0, taps, LANES):  # what is written too much is overwritten by what comes after it
                    values = load(lines, i * padded_line + x * stride[1] * channels + n, LANES)
                    store(row, i * taps + n, values)
            for n in range(kernel[0] * taps, inputs):
                row[n] = 0
            for n in range(0, inputs, LANES):
                store(out, (line * size[1] + x) * inputs + n, load(row, n, LANES))
