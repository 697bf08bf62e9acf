"""Depthwise k x k convolutions with what stands before and after them, each map read and written once.

Maps are (B, H, W, C) in memory, the weight w is (C, k, k), and r = k // 2. A program computes a tile of pixels of some
channels. What a convolution is given, x, may be spikes of a potential v, made as it is read::

    y[b,m,n,c] = sum over i,j of w[c,i,j] x[b,m+i-r,n+j-r,c] + bias[c]          x, or s(v)
    out        = v + gamma y                                                     where a block ends

With g = dL/dy, or gamma dL/dout where a block ends, one pass over g and x gives all of::

    dL/dx[b,m,n,c] = sum over i,j of w[c,i,j] g[b,m-i+r,n-j+r,c]
    dL/dw[c,i,j]   = sum over b,m,n of g[b,m-i+r,n-j+r,c] x[b,m,n,c]            from dL/dout, without gamma
    dL/dbias[c]    = sum over b,m,n of g[b,m,n,c]                                likewise
    dL/dv          = dL/dout + s'(v) dL/ds                                       where a block begins

y is rounded to the dtype of the convolution, as plain operations round it. Sums are of float32.
"""

# Triton's language is not typed.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportUnreachable=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _pixels(tile, height, width, C: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """Where the item of a tile begins in memory, and the pixels (m, n) of the tile, each (BLOCK_Y * BLOCK_X,)."""
    across, down = tl.cdiv(width, BLOCK_X), tl.cdiv(height, BLOCK_Y)
    place = tl.arange(0, BLOCK_Y * BLOCK_X)
    m = (tile // across) % down * BLOCK_Y + place // BLOCK_X
    n = tile % across * BLOCK_X + place % BLOCK_X
    return (tile // (across * down)).to(tl.int64) * height * width * C, m, n


@triton.jit
def _depthwise_forward(
    x_ptr, w_ptr, bias_ptr, v_ptr, gamma_ptr, out_ptr, height, width, threshold,
    C: tl.constexpr, K: tl.constexpr, FIRE: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr, GAMMA: tl.constexpr,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    item, m, n = _pixels(tl.program_id(0), height, width, C, BLOCK_Y, BLOCK_X)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (m < height) & (n < width)
    total = tl.zeros([BLOCK_Y * BLOCK_X, BLOCK_C], tl.float32)
    outside = float("-inf") if FIRE else 0.0  # where nothing fires
    for i in tl.static_range(K):
        for j in tl.static_range(K):
            row, column = m + i - K // 2, n + j - K // 2
            there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at = (row * width + column)[:, None] * C + c[None, :]
            x = tl.load(x_ptr + item + at, mask=there[:, None] & (c < C)[None, :], other=outside).to(tl.float32)
            w = tl.load(w_ptr + c * K * K + i * K + j, mask=c < C, other=0.0).to(tl.float32)[None, :]
            total += tl.where(x >= threshold, w, 0.0) if FIRE else x * w
    if BIAS:
        total += tl.load(bias_ptr + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    y = total.to(w_ptr.dtype.element_ty)
    at = (m * width + n)[:, None] * C + c[None, :]
    stored = inside[:, None] & (c < C)[None, :]
    if ADD:
        y = y.to(tl.float32)
        if GAMMA:
            y *= tl.load(gamma_ptr + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
        y += tl.load(v_ptr + item + at, mask=stored, other=0.0).to(tl.float32)
    tl.store(out_ptr + item + at, y.to(out_ptr.dtype.element_ty), mask=stored)


@triton.jit
def _depthwise_backward(
    grad_ptr, x_ptr, w_ptr, gamma_ptr, outer_ptr, out_ptr, sums_w, sums_b, sums_x, height, width, tiles, each, threshold, low, high,
    C: tl.constexpr, K: tl.constexpr, FIRE: tl.constexpr, GAMMA: tl.constexpr,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Program (i, j): the i-th share of all tiles, and the j-th of the channels."""
    share = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = c < C
    zeros = tl.zeros([BLOCK_Y * BLOCK_X, BLOCK_C], tl.float32)
    totals = ()  # of each tap
    for _ in tl.static_range(K * K):
        totals += (zeros,)
    total_b, total_x = zeros, zeros
    for k in range(each):
        tile = share * each + k
        item, m, n = _pixels(tile, height, width, C, BLOCK_Y, BLOCK_X)
        inside = (m < height) & (n < width) & (tile < tiles)
        at = (m * width + n)[:, None] * C + c[None, :]
        stored = inside[:, None] & known[None, :]
        x = tl.load(x_ptr + item + at, mask=stored, other=0.0).to(tl.float32)
        seen = tl.where(stored & (x >= threshold), 1.0, 0.0) if FIRE else x
        grad_x = zeros
        sums = ()
        for tap in tl.static_range(K * K):
            row, column = m - tap // K + K // 2, n - tap % K + K // 2
            there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at_tap = (row * width + column)[:, None] * C + c[None, :]
            grad = tl.load(grad_ptr + item + at_tap, mask=there[:, None] & known[None, :], other=0.0).to(tl.float32)
            w = tl.load(w_ptr + c * K * K + tap, mask=known, other=0.0).to(tl.float32)
            grad_x += grad * w[None, :]
            sums += (totals[tap] + grad * seen,)
            if tap == K * K // 2:
                total_b += grad
        totals = sums
        if GAMMA:
            grad_x *= tl.load(gamma_ptr + c, mask=known, other=0.0).to(tl.float32)[None, :]
        if FIRE:
            outer = tl.load(outer_ptr + item + at, mask=stored, other=0.0).to(tl.float32)
            grad_x = outer + tl.where((x >= low) & (x <= high), grad_x, 0.0)
        else:
            total_x += tl.where(stored, grad_x, 0.0)
        tl.store(out_ptr + item + at, grad_x.to(out_ptr.dtype.element_ty), mask=stored)
    for tap in tl.static_range(K * K):
        tl.store(sums_w + (share * K * K + tap) * C + c, tl.sum(totals[tap], 0), mask=known)
    tl.store(sums_b + share * C + c, tl.sum(total_b, 0), mask=known)
    if not FIRE:
        tl.store(sums_x + share * C + c, tl.sum(total_x, 0), mask=known)


def _tile(channels: int, size: int) -> dict[str, int]:
    """A tile of the forward pass, of so many rows, columns and channels, and how a program runs; measured on an H100."""
    return {"BLOCK_Y": 4, "BLOCK_X": 4, "BLOCK_C": min(32, triton.next_power_of_2(channels)), "num_warps": 4}


def _tile_backward(channels: int, size: int) -> dict[str, int]:
    """A tile of the backward pass, small enough for a total of each tap in registers; measured on an H100."""
    block_c = min(32, triton.next_power_of_2(channels))
    return {"BLOCK_Y": 4, "BLOCK_X": 4, "BLOCK_C": block_c, "num_warps": 4 if size == 3 else 8}


class Depthwise:
    """A depthwise convolution of stride 1 that keeps the size of a map, on maps in channels-last layout.

    Args:
        weight, bias: (C, 1, k, k), k odd, and (C,), or no bias, of the dtype to compute in.
        threshold, low, high: of the neuron and its surrogate's window.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, threshold: float, low: float, high: float) -> None:
        self.weight, self.bias = weight.contiguous(), bias
        self.channels, self.size = weight.shape[0], weight.shape[2]
        self.threshold, self.low, self.high = threshold, low, high

    def of_spikes(self, v: Tensor) -> Tensor:
        """y of s(v), (b, C, H, W), of the convolution's dtype."""
        return self._forward(v, torch.empty_like(v, dtype=self.weight.dtype), fire=True)

    def added(self, v: Tensor, x: Tensor, gamma: Tensor | None) -> Tensor:
        """``v + gamma y`` of x, of the dtype that the plain sum has."""
        dtype = v.dtype if gamma is None else torch.promote_types(v.dtype, gamma.dtype)
        return self._forward(x, torch.empty_like(v, dtype=torch.promote_types(dtype, x.dtype)), v=v, gamma=gamma)

    def _forward(
        self, x: Tensor, out: Tensor, *, fire: bool = False, v: Tensor | None = None, gamma: Tensor | None = None
    ) -> Tensor:
        batch, channels, height, width = x.shape
        tile = _tile(channels, self.size)
        tiles = batch * triton.cdiv(height, tile["BLOCK_Y"]) * triton.cdiv(width, tile["BLOCK_X"])
        _depthwise_forward[(tiles, triton.cdiv(channels, tile["BLOCK_C"]))](
            x, self.weight, self.bias, v, gamma, out, height, width, self.threshold,
            C=channels, K=self.size, FIRE=fire, BIAS=self.bias is not None, ADD=v is not None, GAMMA=gamma is not None, **tile,
        )  # fmt: skip
        return out

    def backward(
        self, grad: Tensor, x: Tensor, *, gamma: Tensor | None = None, outer: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """dL/dx, of the convolution's dtype; dL/dw (C, k, k), dL/dbias (C,) and the sum of dL/dx over all pixels (C,), float32.

        Args:
            grad: dL/dy; with ``gamma``, dL/dout.
            x: what was convolved; with ``outer``, the potential v whose spikes were.
            gamma: (1, C, 1, 1).
            outer: dL/dout of the block that begins here; then dL/dv, of its dtype, is returned for dL/dx, and no sum of it.
        """
        batch, channels, height, width = x.shape
        tile = _tile_backward(channels, self.size)
        tiles = batch * triton.cdiv(height, tile["BLOCK_Y"]) * triton.cdiv(width, tile["BLOCK_X"])
        blocks = triton.cdiv(channels, tile["BLOCK_C"])
        shares = max(1, min(tiles, 528 // blocks))
        each = triton.cdiv(tiles, shares)
        out = torch.empty_like(x, dtype=self.weight.dtype if outer is None else outer.dtype)
        sums_w = torch.empty((shares, self.size**2, channels), dtype=torch.float32, device=x.device)
        sums_b, sums_x = torch.empty((2, shares, channels), dtype=torch.float32, device=x.device).unbind()
        _depthwise_backward[(shares, blocks)](
            grad, x, self.weight, gamma, outer, out, sums_w, sums_b, sums_x, height, width, tiles, each,
            self.threshold, self.low, self.high,
            C=channels, K=self.size, FIRE=outer is not None, GAMMA=gamma is not None, **tile,
        )  # fmt: skip
        of_weight = sums_w.sum(0).t().reshape(channels, self.size, self.size)
        return out, of_weight, sums_b.sum(0), sums_x.sum(0) if outer is None else None
