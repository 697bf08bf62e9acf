"""The loops of the spike-driven engine, as Numba compiles them: 8-bit maps, 32-bit sums.

Maps are (B, H, W, C), or (B * H * W, C) of pixels. A sum becomes the code ``round(sum * scale) + zero``, limited to 0 to
255, as ONNX defines QLinearConv; halves are rounded to even.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 64  # inputs compared, and outputs added to, at once
_CHUNK = 16  # pixels that share their scratch memory
_ROWS = 256  # of 8-bit weights, whose sum fits 16 bits


def _vector(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    """64 elements of a contiguous array, from the place on."""
    element = context.get_data_type(kind.dtype)
    data = context.make_array(kind)(context, builder, array).data
    pointer = builder.bitcast(builder.gep(data, [place]), ir.VectorType(element, LANES).as_pointer())
    loaded = builder.load(pointer)
    loaded.align = element.width // 8
    return loaded


@intrinsic
def _firing(_: Any, maps: Any, threshold: Any, place: Any) -> Any:
    """A word whose bit i says ``maps[place + i] > threshold[place + i]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = (_vector(context, builder, signature.args[n], arguments[n], arguments[2]) for n in (0, 1))
        return builder.bitcast(builder.icmp_signed(">", left, right), ir.IntType(LANES))

    return types.uint64(maps, threshold, place), generate


@intrinsic
def _lowest(_: Any, word: Any) -> Any:
    """Number of the lowest bit that is set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(word), generate


@intrinsic
def _add_rows(_: Any, weight: Any, active: Any, first: Any, last: Any, column: Any, total: Any) -> Any:
    """``total[column + o] += sum of weight[active[k], column + o]`` over k from first to last - 1, for 64 o.

    The sums of up to 256 rows are kept in registers, in 16 bits.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, listed, start, stop, place, sums = arguments
        kind, wide = signature.args[0], ir.VectorType(ir.IntType(16), LANES)
        width = cgutils.unpack_tuple(builder, context.make_array(kind)(context, builder, rows).shape)[1]
        numbers = context.make_array(signature.args[1])(context, builder, listed).data
        found = cgutils.alloca_once_value(builder, ir.Constant(wide, [0] * LANES))
        with cgutils.for_range(builder, stop, start) as loop:
            row = builder.sext(builder.load(builder.gep(numbers, [loop.index])), width.type)
            added = _vector(context, builder, kind, rows, builder.add(builder.mul(row, width), place))
            builder.store(builder.add(builder.load(found), builder.sext(added, wide)), found)
        before = _vector(context, builder, signature.args[5], sums, place)
        after = builder.add(before, builder.sext(builder.load(found), before.type))
        data = context.make_array(signature.args[5])(context, builder, sums).data
        pointer = builder.bitcast(builder.gep(data, [place]), before.type.as_pointer())
        builder.store(after, pointer).align = 4
        return context.get_dummy_value()

    return types.void(weight, active, first, last, column, total), generate


@njit(inline="always")
def _code(total: Any, scale: Any, zero: Any) -> Any:
    rounded = np.rint(np.float32(total) * scale) + np.float32(zero)
    return np.uint8(min(max(rounded, np.float32(0)), np.float32(255)))


@njit(parallel=True, cache=True)
def accumulate(maps: Any, threshold: Any, weight: Any, bias: Any, scale: Any, zero: int, out: Any) -> None:
    """Codes of ``bias + sum of weight[c] over the inputs c with maps[p, c] > threshold[c]``.

    Args:
        maps: (pixels, K), int8 or int32; K a multiple of 64.
        threshold: (K,), of the same type.
        weight: (K, N'), int8; N' a multiple of 64.
        bias, scale: (N,), int32 and float32.
        zero: code of 0.
        out: (pixels, N), uint8.
    """
    pixels, inputs = maps.shape
    for chunk in prange((pixels + _CHUNK - 1) // _CHUNK):
        active = np.empty(inputs, np.int32)
        total = np.empty(weight.shape[1], np.int32)
        for p in range(chunk * _CHUNK, min(pixels, (chunk + 1) * _CHUNK)):
            count = 0
            for place in range(0, inputs, LANES):
                word = _firing(maps[p], threshold, place)  # pyright: ignore[reportCallIssue]
                while word != np.uint64(0):
                    active[count] = place + _lowest(word)
                    count += 1
                    word &= word - np.uint64(1)
            total[:] = 0
            for first in range(0, count, _ROWS):
                for column in range(0, len(total), LANES):
                    _add_rows(weight, active, first, min(count, first + _ROWS), column, total)  # pyright: ignore[reportCallIssue]
            for o in range(len(bias)):
                out[p, o] = _code(total[o] + bias[o], scale[o], zero)


@njit(parallel=True, cache=True)
def requantise(sums: Any, bias: Any, scale: Any, zero: int, out: Any) -> None:
    """Codes of ``sums + bias``, (pixels, N), of which the sums may have more columns."""
    for p in prange(len(sums)):
        for o in range(len(bias)):
            out[p, o] = _code(sums[p, o] + bias[o], scale[o], zero)


@njit(parallel=True, cache=True)
def fired(maps: Any, threshold: Any, out: Any) -> None:
    """``maps > threshold`` as 0 and 1, (pixels, K), int8."""
    for p in prange(len(maps)):
        for c in range(maps.shape[1]):
            out[p, c] = maps[p, c] > threshold[c]


@njit(parallel=True, cache=True)
def fires(potential: Any, threshold: Any, out: Any) -> None:
    """``potential >= threshold`` as 0 and 1, uint8, of flat arrays."""
    for n in prange(len(potential)):
        out[n] = potential[n] >= threshold


@njit(parallel=True, cache=True)
def add_numbers(potential: Any, codes: Any, zero: Any, step: Any, out: Any) -> None:
    """``potential + (codes - zero) * step``, float32, of flat arrays."""
    for n in prange(len(codes)):
        out[n] = potential[n] + (np.float32(codes[n]) - zero) * step


@njit(parallel=True, cache=True)
def depthwise(maps: Any, around: int, weight: Any, bias: Any, scale: Any, zero: int, out: Any) -> None:
    """Codes of a depthwise convolution 3 x 3 of stride 1 and padding 1.

    Args:
        maps: (B, H, W, C), uint8.
        around: what the maps are padded with.
        weight: (3, 3, C), whole numbers; its type is that of sums: int16 for maps of spikes, else float32.
        bias, scale: (C,), int32 and float32.
        zero: code of 0.
        out: as maps.
    """
    batch, height, width, channels = maps.shape
    number = weight.dtype.type
    flat = maps.reshape(batch, height, width * channels)
    for line in prange(batch * height):
        b, y = line // height, line % height
        padded = np.full((3, (width + 2) * channels), around, np.uint8)
        for i in range(max(0, 1 - y), min(3, height + 1 - y)):
            row, taken = padded[i, channels:], flat[b, y + i - 1]
            for n in range(len(taken)):
                row[n] = taken[n]
        rows = padded.reshape(3, width + 2, channels)
        r0, r1, r2 = rows[0], rows[1], rows[2]
        w0, w1, w2 = weight[0], weight[1], weight[2]
        total = np.empty(channels, weight.dtype)
        given = out[b, y]
        for x in range(width):
            for c in range(channels):  # of nine taps at once, so that no sum is written and read again
                total[c] = (
                    w0[0, c] * number(r0[x, c]) + w0[1, c] * number(r0[x + 1, c]) + w0[2, c] * number(r0[x + 2, c])
                    + w1[0, c] * number(r1[x, c]) + w1[1, c] * number(r1[x + 1, c]) + w1[2, c] * number(r1[x + 2, c])
                    + w2[0, c] * number(r2[x, c]) + w2[1, c] * number(r2[x + 1, c]) + w2[2, c] * number(r2[x + 2, c])
                )  # fmt: skip
            for c in range(channels):
                given[x, c] = _code(np.int32(total[c]) + bias[c], scale[c], zero)


@njit(parallel=True, cache=True)
def columns(maps: Any, from_zero: int, kernel: Any, stride: Any, padding: Any, out: Any) -> None:
    """``maps - from_zero`` under a convolution's kernel, one row for each output pixel.

    Args:
        maps: (B, H, W, C), uint8.
        from_zero: code of 0.
        kernel, stride, padding: (vertical, horizontal).
        out: (B, H', W', K), int8, zero; K is at least rows * columns * C.
    """
    batch, height, width, channels = maps.shape
    flat = maps.reshape(batch, height, width * channels)
    for line in prange(batch * out.shape[1]):
        b, y = line // out.shape[1], line % out.shape[1]
        for x in range(out.shape[2]):
            v, u = y * stride[0] - padding[0], x * stride[1] - padding[1]
            least, most = max(0, -u), min(kernel[1], width - u)
            for i in range(max(0, -v), min(kernel[0], height - v)):
                taken = flat[b, v + i, (u + least) * channels : (u + most) * channels]
                place = (i * kernel[1] + least) * channels
                given = out[b, y, x, place : place + len(taken)]
                for c in range(len(taken)):
                    given[c] = np.int32(taken[c]) - from_zero
