"""Depthwise k x k convolutions with what stands before and after them, each map read and written once.

Maps are (B, H, W, C) in memory, the weight w is (C, k, k), and r = k // 2. A program computes strips, each a
few rows of some columns and channels, and reads a row once for all those it is near. What a convolution is given, x, may be spikes of
a potential v, made as it is read::

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
# pyright: reportPossiblyUnboundVariable=false, reportAttributeAccessIssue=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _strip(strip, height, width, C: tl.constexpr, ROWS: tl.constexpr, BLOCK_X: tl.constexpr):
    """Where the item of a strip begins in memory, the strip's first row, and its columns (BLOCK_X,)."""
    across, down = tl.cdiv(width, BLOCK_X), tl.cdiv(height, ROWS)
    item = (strip // (across * down)).to(tl.int64) * height * width * C
    return item, strip // across % down * ROWS, strip % across * BLOCK_X + tl.arange(0, BLOCK_X)


@triton.jit
def _at(row, column, c, height, width, C: tl.constexpr):
    """Places of a row of an item (BLOCK_X, BLOCK_C), and which of them there are."""
    there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return (row * width + column)[:, None] * C + c[None, :], there[:, None] & (c < C)[None, :]


@triton.jit
def _row(ptr, c, stride: tl.constexpr, C: tl.constexpr, LOW: tl.constexpr):
    """A number of each channel, rounded to LOW, (1, BLOCK_C)."""
    return tl.load(ptr + c * stride, mask=c < C, other=0.0).to(LOW).to(tl.float32)[None, :]


@triton.jit
def _weights(w_ptr, c, C: tl.constexpr, K: tl.constexpr, LOW: tl.constexpr):
    """The weights of each tap, (1, BLOCK_C)."""
    weights = ()
    for tap in tl.static_range(K * K):
        weights += (_row(w_ptr + tap, c, K * K, C, LOW),)
    return weights


@triton.jit(do_not_specialize=["height", "width", "strips", "each"])
def _depthwise_forward(
    x_ptr, w_ptr, bias_ptr, v_ptr, gamma_ptr, out_ptr, height, width, strips, each, threshold,
    C: tl.constexpr, K: tl.constexpr, FIRE: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr, GAMMA: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Program (i, j): the i-th share of all strips, and the j-th of the channels."""
    share = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    LOW: tl.constexpr = x_ptr.dtype.element_ty if ADD else out_ptr.dtype.element_ty
    weights = _weights(w_ptr, c, C, K, LOW)
    if BIAS:
        bias = _row(bias_ptr, c, 1, C, LOW)
    if GAMMA:
        gamma = _row(gamma_ptr, c, 1, C, tl.float32)
    outside = float("-inf") if FIRE else 0.0  # where nothing fires
    for k in range(each):
        strip = share * each + k
        rows = tl.where(strip < strips, height, 0)  # none, beyond the last strip
        item, first, n = _strip(strip, height, width, C, ROWS, BLOCK_X)
        totals = ()  # of each row
        for _ in tl.static_range(ROWS):
            totals += (tl.zeros([BLOCK_X, BLOCK_C], tl.float32),)
        for y in tl.static_range(ROWS + K - 1):
            for j in tl.static_range(K):
                at, there = _at(first + y - K // 2, n + j - K // 2, c, rows, width, C)
                x = tl.load(x_ptr + item + at, mask=there, other=outside).to(tl.float32)
                if FIRE:
                    x = tl.where(x >= threshold, 1.0, 0.0)
                sums = ()
                for row in tl.static_range(ROWS):
                    # Row y - row of the weights leads from here to there.
                    if (y - row >= 0) & (y - row < K):
                        sums += (totals[row] + x * weights[(y - row) * K + j],)
                    else:
                        sums += (totals[row],)
                totals = sums
        for row in tl.static_range(ROWS):
            total = totals[row]
            if BIAS:
                total += bias
            y = total.to(LOW)
            at, there = _at(first + row, n, c, rows, width, C)
            if ADD:
                y = y.to(tl.float32)
                if GAMMA:
                    y *= gamma
                y += tl.load(v_ptr + item + at, mask=there, other=0.0).to(tl.float32)
            tl.store(out_ptr + item + at, y.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["height", "width", "strips", "each"])
def _depthwise_backward(
    grad_ptr, x_ptr, w_ptr, gamma_ptr, outer_ptr, out_ptr, sums_ptr, height, width, strips, each, threshold, low, high,
    C: tl.constexpr, K: tl.constexpr, FIRE: tl.constexpr, GAMMA: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Program (i, j) as in the forward pass.

    Its sums are the i-th of (shares, k * k + 2, C): of each tap's gradient, the bias's, and dL/dx, that last without FIRE.
    """
    share = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    LOW: tl.constexpr = grad_ptr.dtype.element_ty if FIRE else x_ptr.dtype.element_ty
    weights = _weights(w_ptr, c, C, K, LOW)
    if GAMMA:
        gamma = _row(gamma_ptr, c, 1, C, tl.float32)
    zeros = tl.zeros([BLOCK_X, BLOCK_C], tl.float32)
    totals = ()  # of each tap
    for _ in tl.static_range(K * K):
        totals += (zeros,)
    total_b, total_x = zeros, zeros
    for k in range(each):
        strip = share * each + k
        rows = tl.where(strip < strips, height, 0)  # none, beyond the last strip
        item, first, n = _strip(strip, height, width, C, ROWS, BLOCK_X)
        xs, seen, grads_x = (), (), ()  # of each row
        for row in tl.static_range(ROWS):
            at, there = _at(first + row, n, c, rows, width, C)
            x = tl.load(x_ptr + item + at, mask=there, other=0.0).to(tl.float32)
            xs += (x,)
            seen += (tl.where(there & (x >= threshold), 1.0, 0.0) if FIRE else x,)
            grads_x += (zeros,)
        for y in tl.static_range(ROWS + K - 1):
            for j in tl.static_range(K):
                at, there = _at(first + y - K // 2, n - j + K // 2, c, rows, width, C)
                grad = tl.load(grad_ptr + item + at, mask=there, other=0.0).to(tl.float32)
                sums = ()
                for row in tl.static_range(ROWS):
                    # Row K - 1 + row - y of the weights leads from here to there.
                    if (y - row >= 0) & (y - row < K):
                        sums += (grads_x[row] + grad * weights[(K - 1 + row - y) * K + j],)
                    else:
                        sums += (grads_x[row],)
                grads_x = sums
                sums = ()
                for tap in tl.static_range(K * K):
                    if (tap % K == j) & (tap // K + y >= K - 1) & (tap // K + y < ROWS + K - 1):
                        sums += (totals[tap] + grad * seen[tap // K + y - K + 1],)
                    else:
                        sums += (totals[tap],)
                totals = sums
                if (j == K // 2) & (y >= K // 2) & (y < ROWS + K // 2):
                    total_b += grad
        for row in tl.static_range(ROWS):
            at, there = _at(first + row, n, c, rows, width, C)
            grad_x = grads_x[row]
            if GAMMA:
                grad_x *= gamma
            if FIRE:
                outer = tl.load(outer_ptr + item + at, mask=there, other=0.0).to(tl.float32)
                grad_x = outer + tl.where((xs[row] >= low) & (xs[row] <= high), grad_x, 0.0)
            else:
                total_x += tl.where(there, grad_x, 0.0)
            tl.store(out_ptr + item + at, grad_x.to(out_ptr.dtype.element_ty), mask=there)
    of_share = sums_ptr + share * (K * K + (1 if FIRE else 2)) * C + c
    for tap in tl.static_range(K * K):
        tl.store(of_share + tap * C, tl.sum(totals[tap], 0), mask=c < C)
    tl.store(of_share + K * K * C, tl.sum(total_b, 0), mask=c < C)
    if not FIRE:
        tl.store(of_share + (K * K + 1) * C, tl.sum(total_x, 0), mask=c < C)


def _tile(channels: int, size: int) -> dict[str, int]:
    """A strip of the forward pass, of so many rows, columns and channels, and how a program runs.

    Measured on an H200 for 3 x 3; larger kernels have so few numbers for each thread that it spills none of its registers.
    """
    block_c = min(64 if size <= 5 else 32, triton.next_power_of_2(channels))
    return {"ROWS": 7 if size <= 3 else 4, "BLOCK_X": 8, "BLOCK_C": block_c, "num_warps": _warps(8 * block_c, size)}


def _tile_backward(channels: int, size: int) -> dict[str, int]:
    """A strip of the backward pass, which has a total of each tap in registers, likewise."""
    block_c = min(64 if size <= 5 else 32, triton.next_power_of_2(channels))
    rows, columns = (2, 4) if size <= 5 else (1, 8)
    return {"ROWS": rows, "BLOCK_X": columns, "BLOCK_C": block_c, "num_warps": _warps(columns * block_c, size)}


def _warps(numbers: int, size: int) -> int:
    """The warps of 32 threads that share the numbers of a row: four, two or one for each thread."""
    return max(1, numbers // 32 // (4 if size <= 3 else 2 if size == 5 else 1))


def _share(maps: Tensor, tile: dict[str, int], programs: int) -> tuple[int, int, tuple[int, int]]:
    """The number of strips, how many of them one program computes, and the programs, about as many as are asked for."""
    batch, channels, height, width = maps.shape
    strips = batch * triton.cdiv(height, tile["ROWS"]) * triton.cdiv(width, tile["BLOCK_X"])
    blocks = triton.cdiv(channels, tile["BLOCK_C"])
    each = triton.cdiv(strips, max(1, programs // blocks))
    return strips, each, (triton.cdiv(strips, each), blocks)


class Depthwise:
    """A depthwise convolution of stride 1 that keeps the size of a map, on maps in channels-last layout.

    Args:
        weight, bias: (C, 1, k, k), k odd, and (C,), or no bias, of any dtype.
        dtype: to compute in, to which weight and bias are rounded.
        threshold, low, high: of the neuron and its surrogate's window.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, threshold: float, low: float, high: float
    ) -> None:
        self.weight, self.bias, self.dtype = weight.contiguous(), bias, dtype
        self.channels, self.size = weight.shape[0], weight.shape[2]
        self.threshold, self.low, self.high = threshold, low, high

    def of_spikes(self, v: Tensor) -> Tensor:
        """y of s(v), (b, C, H, W), of the convolution's dtype."""
        return self._forward(v, torch.empty_like(v, dtype=self.dtype), fire=True)

    def added(self, v: Tensor, x: Tensor, gamma: Tensor | None) -> Tensor:
        """``v + gamma y`` of x, of the dtype that the plain sum has."""
        dtype = v.dtype if gamma is None else torch.promote_types(v.dtype, gamma.dtype)
        return self._forward(x, torch.empty_like(v, dtype=torch.promote_types(dtype, x.dtype)), v=v, gamma=gamma)

    def _forward(
        self, x: Tensor, out: Tensor, *, fire: bool = False, v: Tensor | None = None, gamma: Tensor | None = None
    ) -> Tensor:
        _, channels, height, width = x.shape
        tile = _tile(channels, self.size)
        strips, each, grid = _share(x, tile, 4224)
        _depthwise_forward[grid](
            x, self.weight, self.bias, v, gamma, out, height, width, strips, each, self.threshold,
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
        _, channels, height, width = x.shape
        tile = _tile_backward(channels, self.size)
        strips, each, grid = _share(x, tile, 2112)
        out = torch.empty_like(x, dtype=self.dtype if outer is None else outer.dtype)
        taps = self.size**2
        sums = torch.empty(
            (grid[0], taps + (2 if outer is None else 1), channels), dtype=torch.float32, device=x.device
        )
        _depthwise_backward[grid](
            grad, x, self.weight, gamma, outer, out, sums, height, width, strips, each, self.threshold, self.low, self.high,
            C=channels, K=self.size, FIRE=outer is not None, GAMMA=gamma is not None, **tile,
        )  # fmt: skip
        total = sums.sum(0)
        of_weight = total[:taps].t().reshape(channels, self.size, self.size)
        return out, of_weight, total[taps], total[taps + 1] if outer is None else None
