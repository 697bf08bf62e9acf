"""The loops of the spike-driven engine, as Numba compiles them: 8-bit maps, 32-bit sums.

Maps are (B, H, W, C), or (B * H * W, C) of pixels, contiguous, with a multiple of 32 channels. A sum becomes the code
``round((sum + bias) * scale) + zero``, limited to 0 to 255, as ONNX defines QLinearConv; halves are rounded to even.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from trevsnn.deploy.int8.vectors import (
    above,
    converted,
    fires,
    fused,
    limited,
    load,
    number_of_ones,
    packed,
    rounded,
    spread,
    store,
)

LANES = 32  # channels computed at once
_LIST = 16  # inputs that are looked at at once
_CHUNK = 4  # pixels that share their scratch memory; few, so that threads get as many each
_ROWS = 256  # of 8-bit weights, whose sum fits 16 bits
_LINES = 4  # of a map that a depthwise convolution takes at a time


@njit(inline="always")
def _number(total: Any, bias: Any, scale: Any, zero: Any, lanes: Any) -> Any:
    """The code of sums less the code of 0, float32."""
    low, high = spread(np.float32(-zero), lanes), spread(np.float32(255 - zero), lanes)
    return limited(rounded(converted(total + bias, np.float32) * scale), low, high)


@njit(inline="always")
def _code(total: Any, bias: Any, scale: Any, zero: Any, lanes: Any) -> Any:
    """The code of sums, int32."""
    return converted(_number(total, bias, scale, zero, lanes), np.int32) + spread(np.int32(zero), lanes)


@njit(inline="always")
def _sum_rows(weight: Any, active: Any, count: Any, column: Any, lanes: Any) -> Any:
    """The sum of the rows of weight that begin at ``active[k]`` in the flat array, of as many columns, int32."""
    total = spread(np.int32(0), lanes)
    for first in range(0, count, _ROWS):
        part = spread(np.int16(0), lanes)
        for k in range(first, min(count, first + _ROWS)):
            part = part + converted(load(weight, active[k] + column, lanes), np.int16)
        total = total + converted(part, np.int32)
    return total


@njit(parallel=True, cache=True)
def accumulate(maps: Any, threshold: Any, rows: Any, weight: Any, bias: Any, scale: Any, zero: int, out: Any) -> None:
    """Codes of ``bias + sum of weight[c] over the inputs c with maps[p, c] > threshold[c]``.

    Args:
        maps: (pixels, K), int8, or int32 or float32 of whole numbers.
        threshold: (K,), of the same type.
        rows: (K,), int32, where each row of the weight begins.
        weight: (K, N), int8.
        bias, scale: (N,), int32 and float32.
        zero: code of 0.
        out: (pixels, N), uint8.
    """
    pixels, inputs = maps.shape
    outputs = len(bias)
    flat, weights, given = maps.reshape(-1), weight.reshape(-1), out.reshape(-1)
    for chunk in prange((pixels + _CHUNK - 1) // _CHUNK):
        active = np.empty(inputs + _LIST, np.int32)
        for p in range(chunk * _CHUNK, min(pixels, (chunk + 1) * _CHUNK)):
            count = 0
            for c in range(0, inputs, _LIST):
                word = above(load(flat, p * inputs + c, _LIST), load(threshold, c, _LIST))
                store(active, count, packed(load(rows, c, _LIST), word))
                count += number_of_ones(word)
            o, place = 0, p * outputs
            while o + 128 <= outputs:  # the more at once, the fewer times the list is read
                total = _sum_rows(weights, active, count, o, 128)
                store(given, place + o, _code(total, load(bias, o, 128), load(scale, o, 128), zero, 128))
                o += 128
            while o + 64 <= outputs:
                total = _sum_rows(weights, active, count, o, 64)
                store(given, place + o, _code(total, load(bias, o, 64), load(scale, o, 64), zero, 64))
                o += 64
            while o < outputs:
                total = _sum_rows(weights, active, count, o, LANES)
                store(given, place + o, _code(total, load(bias, o, LANES), load(scale, o, LANES), zero, LANES))
                o += LANES


@njit(parallel=True, cache=True)
def requantise(sums: Any, bias: Any, scale: Any, zero: int, out: Any) -> None:
    """Codes of ``sums + bias``, (pixels, N); as in :func:`accumulate`."""
    outputs = len(bias)
    flat, given = sums.reshape(-1), out.reshape(-1)
    for p in prange(len(sums)):
        for o in range(0, outputs, LANES):
            total = converted(load(flat, p * outputs + o, LANES), np.int32)
            store(given, p * outputs + o, _code(total, load(bias, o, LANES), load(scale, o, LANES), zero, LANES))


@njit(parallel=True, cache=True)
def fired(maps: Any, threshold: Any, out: Any) -> None:
    """``maps > threshold`` as 0 and 1, (pixels, K), int8."""
    for p in prange(len(maps)):
        for c in range(maps.shape[1]):
            out[p, c] = maps[p, c] > threshold[c]


@njit(parallel=True, cache=True, error_model="numpy")  # Python's looks at every divisor
def quantise(values: Any, step: Any, zero: int, out: Any) -> None:
    """Codes ``round(values / step) + zero``, uint8, of flat arrays."""
    for n in prange(len(values)):
        code = np.rint(values[n] / step) + np.float32(zero)
        out[n] = np.uint8(min(max(code, np.float32(0)), np.float32(255)))


@njit(parallel=True, cache=True)
def spikes(potential: Any, threshold: Any, out: Any) -> None:
    """``potential >= threshold`` as 0 and 1, uint8, of flat arrays."""
    for n in prange(len(potential)):
        out[n] = potential[n] >= threshold


@njit(parallel=True, cache=True)
def numbers(codes: Any, zero: int, step: Any, times: int, potential: Any, out: Any) -> None:
    """``(codes - zero) * step``, float32, every pixel so many times in each direction, added to a potential or alone.

    Args:
        codes: (B, H, W, C), uint8.
        zero, step: code of 0, and what one step is, float32.
        times: 1 or 2.
        potential: flat, float32, or None.
        out: (B, H', W', C), float32; H' and W' at most ``times`` as much as H and W.
    """
    batch, height, width, channels = out.shape
    flat, given = codes.reshape(-1), out.reshape(-1)
    for line in prange(batch * height):
        b, y = line // height, line % height
        for x in range(width):
            source = ((b * codes.shape[1] + y // times) * codes.shape[2] + x // times) * channels
            place = (line * width + x) * channels
            for c in range(0, channels, LANES):
                number = converted(load(flat, source + c, LANES), np.float32) - spread(np.float32(zero), LANES)
                number = number * spread(step, LANES)
                if potential is not None:
                    number = load(potential, place + c, LANES) + number
                store(given, place + c, number)


@njit
def _give(
    real: Any, bias: Any, scale: Any, zero: Any, step: Any, potential: Any, alpha: Any, previous: Any, c: Any,
    place: Any, out: Any,
) -> None:  # fmt: skip
    """What :func:`depthwise` gives for the sums of one pixel."""
    total = converted(real, np.int32)
    if potential is None:
        store(out, place, _code(total, bias, scale, zero, LANES))
    else:
        number = _number(total, bias, scale, zero, LANES) * spread(step, LANES)
        state = load(potential, place, LANES) + number
        if previous is not None:
            state = load(alpha, c, LANES) * load(previous, place, LANES) + state
        store(out, place, state)


@njit(parallel=True, cache=True)
def depthwise(
    maps: Any, threshold: Any, from_zero: int, kernel: int, weight: Any, bias: Any, scale: Any, zero: int, step: Any,
    potential: Any, alpha: Any, previous: Any, out: Any,
) -> None:  # fmt: skip
    """A depthwise convolution of stride 1, of spikes to codes, or of codes to what they add to a potential.

    Args:
        maps: (B, H, W, C), potentials, float32, that fire at the threshold; or codes, uint8.
        threshold: float32; None for codes.
        from_zero: code of 0 in the maps.
        kernel: its rows and columns, an odd number; half of it is the padding.
        weight: (kernel ** 2, C), float32, whole numbers.
        bias, scale: (C,), int32 and float32.
        zero: code of 0 in the output.
        step: what one step of the output's code is, float32.
        potential: flat, float32: ``potential + step * (codes - zero)`` is given; None for the codes.
        alpha, previous: (C,) and flat, float32: ``alpha * previous`` is added too; None for nothing.
        out: flat, uint8 or float32.
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
        # LANES channels of these lines and those around them, as numbers, with zeros around the map.
        block = np.zeros((_LINES + 2 * around) * block_line, np.float32)
        for i in range(max(0, around - top), min(lines + 2 * around, height + around - top)):
            for x in range(width):
                taken = load(flat, ((b * height + top + i - around) * width + x) * channels + c, LANES)
                if threshold is None:
                    number = converted(taken, np.float32) - spread(np.float32(from_zero), LANES)
                else:
                    number = fires(taken, spread(threshold, LANES))
                store(block, i * block_line + (x + around) * LANES, number)
        beta, scales, nothing = load(bias, c, LANES), load(scale, c, LANES), spread(np.float32(0), LANES)
        for i in range(lines):
            for x in range(0, width, 4):
                t0, t1, t2, t3 = nothing, nothing, nothing, nothing
                for u in range(kernel):
                    for v in range(kernel):
                        w = load(taps, (u * kernel + v) * channels + c, LANES)
                        r = (i + u) * block_line + (x + v) * LANES
                        t0 = fused(load(block, r, LANES), w, t0)
                        t1 = fused(load(block, r + LANES, LANES), w, t1)
                        t2 = fused(load(block, r + 2 * LANES, LANES), w, t2)
                        t3 = fused(load(block, r + 3 * LANES, LANES), w, t3)
                place = ((b * height + top + i) * width + x) * channels + c
                _give(t0, beta, scales, zero, step, potential, alpha, previous, c, place, out)
                if x + 1 < width:
                    _give(t1, beta, scales, zero, step, potential, alpha, previous, c, place + channels, out)
                if x + 2 < width:
                    _give(t2, beta, scales, zero, step, potential, alpha, previous, c, place + 2 * channels, out)
                if x + 3 < width:
                    _give(t3, beta, scales, zero, step, potential, alpha, previous, c, place + 3 * channels, out)


@njit(parallel=True, cache=True)
def columns(
    maps: Any, from_zero: int, kernel: Any, stride: Any, padding: Any, size: Any, inputs: int, first: int, out: Any
) -> None:
    """``maps - from_zero`` under a convolution's kernel, one row for each output pixel.

    Args:
        maps: (B, H, W, C), uint8, of any number of channels.
        from_zero: code of 0.
        kernel, stride, padding: (vertical, horizontal).
        size: of the output: H', W'.
        inputs: K, length of a row, at least rows * columns * C; what is left of it is filled with zeros.
        first: line of the output, counted over the whole batch, to begin with.
        out: lines * W' * K, int8, flat.
    """
    batch, height, width, channels = maps.shape
    flat = maps.reshape(batch, height, width * channels)
    taken, left = kernel[1] * channels, padding[1] * channels
    padded_line = (width + 2 * padding[1]) * channels + LANES
    for line in prange(len(out) // (size[1] * inputs)):
        b, top = (first + line) // size[0], (first + line) % size[0] * stride[0] - padding[0]
        lines, row = np.zeros(kernel[0] * padded_line, np.int8), np.empty(inputs + LANES, np.int8)
        for i in range(max(0, -top), min(kernel[0], height - top)):
            source, given = flat[b, top + i], lines[i * padded_line + left :]
            for n in range(len(source)):
                given[n] = np.int32(source[n]) - from_zero
        for x in range(size[1]):
            for i in range(kernel[0]):
                for n in range(0, taken, LANES):  # what is written too much is written over by what comes after it
                    values = load(lines, i * padded_line + x * stride[1] * channels + n, LANES)
                    store(row, i * taken + n, values)
            for n in range(kernel[0] * taken, inputs):
                row[n] = 0
            for n in range(0, inputs, LANES):
                store(out, (line * size[1] + x) * inputs + n, load(row, n, LANES))
