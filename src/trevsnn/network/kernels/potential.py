"""The potential of a level, the sum of what comes from below and from above, in one pass.

With the mean, variance, weight w and bias b of a link's normalisation, for each channel, and the upper map at the pixel of
nearest-neighbour upsampling::

    n(x) = w (x - mean) / sqrt(var + eps) + b
    v    = n(below) + upsample(n(above))          or below itself, where it is the network's input; or without above
"""

# Triton's language is not typed.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportUnreachable=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trevsnn.network.norm import BatchNorm, Statistics

#: Maps, and what they are normalised by; neither where they are taken as they are.
Normalised = tuple[Tensor, BatchNorm | None, Statistics | None]


@triton.jit
def _normalise(x, mean, var, weight, bias, c, eps, C: tl.constexpr, AFFINE: tl.constexpr):
    known = c < C
    scale = tl.rsqrt(tl.load(var + c, mask=known, other=1.0).to(tl.float32) + eps)
    y = (x - tl.load(mean + c, mask=known, other=0.0).to(tl.float32)[None, :]) * scale[None, :]
    if AFFINE:
        y = y * tl.load(weight + c, mask=known, other=0.0).to(tl.float32)[None, :]
        y += tl.load(bias + c, mask=known, other=0.0).to(tl.float32)[None, :]
    return y


@triton.jit(do_not_specialize=["pixels", "height", "width", "height_a", "width_a"])
def _potential(
    below, mean_b, var_b, weight_b, bias_b, eps_b, above, mean_a, var_a, weight_a, bias_a, eps_a, out, pixels,
    height, width, height_a, width_a, C: tl.constexpr, NORM: tl.constexpr, AFFINE_B: tl.constexpr, AFFINE_A: tl.constexpr,
    ABOVE: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (row < pixels)[:, None] & (c < C)[None, :]
    v = tl.load(below + row[:, None] * C + c[None, :], mask=inside, other=0.0)
    if NORM:
        v = _normalise(v.to(tl.float32), mean_b, var_b, weight_b, bias_b, c, eps_b, C, AFFINE_B).to(v.dtype)
    if ABOVE:
        m, n = row % (height * width) // width, row % width
        upper = (row // (height * width) * height_a + m * height_a // height) * width_a + n * width_a // width
        a = tl.load(above + upper[:, None] * C + c[None, :], mask=inside, other=0.0)
        a = _normalise(a.to(tl.float32), mean_a, var_a, weight_a, bias_a, c, eps_a, C, AFFINE_A).to(a.dtype)
        v = v.to(tl.float32) + a.to(tl.float32)
    tl.store(out + row[:, None] * C + c[None, :], v.to(out.dtype.element_ty), mask=inside)


def potential(below: Normalised, above: Normalised | None) -> Tensor:
    """v, (b, C, H, W), in channels-last layout, of maps of that shape and upper ones (b, C, h, w)."""
    maps = below[0].contiguous(memory_format=torch.channels_last)
    upper = maps if above is None else above[0].contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = maps.shape
    out = torch.empty_like(maps, dtype=torch.promote_types(maps.dtype, upper.dtype))
    block_c = min(64, triton.next_power_of_2(channels))
    block_n = 2048 // block_c
    grid = triton.cdiv(batch * height * width, block_n), triton.cdiv(channels, block_c)
    numbers_b, affine_b = _numbers(below)
    numbers_a, affine_a = _numbers(above or below)
    _potential[grid](
        maps, *numbers_b, upper, *numbers_a, out, batch * height * width, height, width, *upper.shape[2:],
        C=channels, NORM=below[1] is not None, AFFINE_B=affine_b, AFFINE_A=affine_a, ABOVE=above is not None,
        BLOCK_N=block_n, BLOCK_C=block_c,
    )  # fmt: skip
    return out


def _numbers(source: Normalised) -> tuple[tuple[Any, ...], bool]:
    _, norm, by = source
    if norm is None or by is None:
        return (None, None, None, None, 0.0), False
    return (by.mean, by.var, norm.weight, norm.bias, norm.eps), norm.weight is not None
