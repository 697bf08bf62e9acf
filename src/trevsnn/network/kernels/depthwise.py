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

y and g are rounded to the dtype of the convolution, as plain operations round them. Sums are of float32.
"""

# pyright: reportUnreachable=false, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _pixels(tile, height, width, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """The pixels (b, m, n) of a tile, each (BLOCK_Y * BLOCK_X,)."""
    across, down = tl.cdiv(width, BLOCK_X), tl.cdiv(height, BLOCK_Y)
    place = tl.arange(0, BLOCK_Y * BLOCK_X)
    m = (tile // across) % down * BLOCK_Y + place // BLOCK_X
    n = tile % across * BLOCK_X + place % BLOCK_X
    return (tile // (across * down)).to(tl.int64), m, n


@triton.jit
def _forward(
    x_ptr, w_ptr, bias_ptr, v_ptr, gamma_ptr, out_ptr, height, width, threshold,
    C: tl.constexpr, K: tl.constexpr, FIRE: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr, GAMMA: tl.constexpr,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b, m, n = _pixels(tl.program_id(0), height, width, BLOCK_Y, BLOCK_X)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (m < height) & (n < width)
    total = tl.zeros([BLOCK_Y * BLOCK_X, BLOCK_C], tl.float32)
    for i in tl.static_range(K):
        for j in tl.static_range(K):
            row, column = m + i - K // 2, n + j - K // 2
            there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at = ((b * height + row) * width + column)[:, None] * C + c[None, :]
            x = tl.load(x_ptr + at, mask=there[:, None] & (c < C)[None, :], other=0.0).to(tl.float32)
            if FIRE:
                x = tl.where(there[:, None] & (x >= threshold), 1.0, 0.0)
            w = tl.load(w_ptr + c * K * K + i * K + j, mask=c < C, other=0.0).to(tl.float32)
            total += x * w[None, :]
    if BIAS:
        total += tl.load(bias_ptr + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    y = total.to(w_ptr.dtype.element_ty)
    at = ((b * height + m) * width + n)[:, None] * C + c[None, :]
    stored = inside[:, None] & (c < C)[None, :]
    if ADD:
        y = y.to(tl.float32)
        if GAMMA:
            y *= tl.load(gamma_ptr + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
        y += tl.load(v_ptr + at, mask=stored, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask=stored)


@triton.jit
def _backward(
    grad_ptr, x_ptr, w_ptr, gamma_ptr, outer_ptr, out_ptr, sums_w, sums_b, sums_x, height, width, tiles, each, threshold, low, high,
    C: tl.constexpr, K: tl.constexpr, TAPS: tl.constexpr, FIRE: tl.constexpr, GAMMA: tl.constexpr,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Program (i, j): the i-th share of all tiles, and the j-th of the channels. An axis of taps stands first."""
    dtype = w_ptr.dtype.element_ty
    share = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    tap = tl.arange(0, TAPS)
    known = (tap < K * K)[:, None] & (c < C)[None, :]
    w = tl.load(w_ptr + c[None, :] * K * K + tap[:, None], mask=known, other=0.0).to(tl.float32)
    total_w = tl.zeros([TAPS, BLOCK_Y * BLOCK_X, BLOCK_C], tl.float32)
    total_b = tl.zeros([BLOCK_Y * BLOCK_X, BLOCK_C], tl.float32)
    total_x = tl.zeros([BLOCK_Y * BLOCK_X, BLOCK_C], tl.float32)
    if GAMMA:
        gamma = tl.load(gamma_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    for k in range(each):
        tile = share * each + k
        b, m, n = _pixels(tile, height, width, BLOCK_Y, BLOCK_X)
        inside = (m < height) & (n < width) & (tile < tiles)
        row, column = m[None, :] - (tap // K)[:, None] + K // 2, n[None, :] - (tap % K)[:, None] + K // 2
        there = inside[None, :] & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        there = there & (tap < K * K)[:, None]
        at = ((b * height + row) * width + column)[:, :, None] * C + c[None, None, :]
        grad = tl.load(grad_ptr + at, mask=there[:, :, None] & (c < C)[None, None, :], other=0.0)
        at = ((b * height + m) * width + n)[:, None] * C + c[None, :]
        stored = inside[:, None] & (c < C)[None, :]
        x = tl.load(x_ptr + at, mask=stored, other=0.0).to(tl.float32)
        centre = tl.load(grad_ptr + at, mask=stored, other=0.0).to(dtype).to(tl.float32)
        plain = grad.to(dtype).to(tl.float32)
        if FIRE:
            seen = tl.where(stored & (x >= threshold), 1.0, 0.0)
        else:
            seen = x
        total_w += plain * seen[None, :, :]
        total_b += centre
        if GAMMA:
            plain = (grad.to(tl.float32) * gamma[None, None, :]).to(dtype).to(tl.float32)
        grad_x = tl.sum(plain * w[:, None, :], 0).to(dtype).to(tl.float32)
        if FIRE:
            outer = tl.load(outer_ptr + at, mask=stored, other=0.0).to(tl.float32)
            grad_x = outer + tl.where((x >= low) & (x <= high), grad_x, 0.0)
        else:
            total_x += tl.where(stored, grad_x, 0.0)
        tl.store(out_ptr + at, grad_x.to(out_ptr.dtype.element_ty), mask=stored)
    where = (share * K * K + tap[:, None]) * C + c[None, :]
    tl.store(sums_w + where, tl.sum(total_w, 1), mask=known)
    tl.store(sums_b + share * C + c, tl.sum(total_b, 0), mask=c < C)
    if not FIRE:
        tl.store(sums_x + share * C + c, tl.sum(total_x, 0), mask=c < C)


def _tile(channels: int) -> dict[str, int]:
    return {"BLOCK_Y": 8, "BLOCK_X": 8, "BLOCK_C": min(64, triton.next_power_of_2(channels)), "num_warps": 4}


def _tile_backward(channels: int, size: int) -> dict[str, int]:
    block_c = min(64 if size <= 3 else 32, triton.next_power_of_2(channels))
    return {"BLOCK_Y": 4, "BLOCK_X": 4, "BLOCK_C": block_c, "num_warps": 8}


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
        tile = _tile(channels)
        tiles = batch * triton.cdiv(height, tile["BLOCK_Y"]) * triton.cdiv(width, tile["BLOCK_X"])
        _forward[(tiles, triton.cdiv(channels, tile["BLOCK_C"]))](
            x, self.weight, self.bias, v, gamma, out, height, width, self.threshold,
            C=channels, K=self.size, FIRE=fire, BIAS=self.bias is not None, ADD=v is not None, GAMMA=gamma is not None, **tile,
        )  # fmt: skip
        return out

    def backward(
        self, grad: Tensor, x: Tensor, *, gamma: Tensor | None = None, outer: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
        _backward[(shares, blocks)](
            grad, x, self.weight, gamma, outer, out, sums_w, sums_b, sums_x, height, width, tiles, each,
            self.threshold, self.low, self.high,
            C=channels, K=self.size, TAPS=triton.next_power_of_2(self.size**2),
            FIRE=outer is not None, GAMMA=gamma is not None, **tile,
        )  # fmt: skip
        of_weight = sums_w.sum(0).t().reshape(channels, self.size, self.size)
        return out, of_weight, sums_b.sum(0), sums_x.sum(0)
