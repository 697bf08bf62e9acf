"""The 4C-wide hidden map of a block, in tiles that never leave the processor.

With u, (N, C), one row for each pixel, W1, (D, C), b1, (D,), and W2, (C, D), b2, (C,)::

    h = W1 u + b1       p = W2 s(h) + b2        s(h) = 1 if h >= 0.5 else 0

In plain operations h is written, read, written as spikes and read again, 8 bytes of an element in 16 bits; here each
program keeps a tile of it for as long as it takes. The backward pass computes h once more from u, with the same products
in the same order, so that its spikes are those of the forward pass::

    dL/dh  = s'(h) W2^T dL/dp           s'(h) = 1 on 0 <= h <= 1, else 0
    dL/du  = W1^T dL/dh
    dL/dW1 = sum over pixels of dL/dh u^T        dL/db1 = sum of dL/dh        dL/dW2 = sum of dL/dp s(h)^T

h and dL/dh are rounded to the maps' dtype as the plain operations round them. Sums are of float32.
"""

# Triton's language is not typed.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportUnreachable=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: The widest C for which this is faster than the library's products with the map in memory; measured on an H200.
WIDEST = 128

#: Of the weights' gradient: enough to fill a large card twice, and not one more, as each writes sums of its own.
PROGRAMS = 264


def is_narrow(channels: int, device: torch.device) -> bool:
    """Whether a block of so many channels has its hidden map in registers. None has on a card before Ampere, for whose matrix
    units Triton does not compile: there threads spill thousands of bytes, and a program's memory is more than there is."""
    early = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
    return channels <= WIDEST and not early


@triton.jit
def _load_rows(maps, rows, channels, pixels, C: tl.constexpr):
    """A tile (rows, channels) of maps (N, C), zeros beyond their ends."""
    inside = (rows[:, None] < pixels) & (channels[None, :] < C)
    return tl.load(maps + rows[:, None] * C + channels[None, :], mask=inside, other=0.0)


@triton.jit
def _load_weights(w1, w2, units, channels, C: tl.constexpr, D: tl.constexpr):
    """Tiles of W1 and W2 as (channels, units), zeros beyond their ends."""
    inside = (channels[:, None] < C) & (units[None, :] < D)
    tile1 = tl.load(w1 + units[None, :] * C + channels[:, None], mask=inside, other=0.0)
    tile2 = tl.load(w2 + channels[:, None] * D + units[None, :], mask=inside, other=0.0)
    return tile1, tile2


@triton.jit
def _hidden(u, tile1, b1, units, D: tl.constexpr, BIAS: tl.constexpr):
    """h of a tile, (rows, units)."""
    h = tl.dot(u, tile1)
    if BIAS:
        h += tl.load(b1 + units, mask=units < D, other=0.0).to(tl.float32)[None, :]
    return h.to(u.dtype)


@triton.jit
def _fire(h, threshold):
    """s(h), and NaN where h is."""
    h32 = h.to(tl.float32)
    return tl.where(h32 == h32, tl.where(h32 >= threshold, 1.0, 0.0), h32).to(h.dtype)


@triton.jit
def _through(h, grad, low, high):
    """s'(h) times the gradient, of h's dtype."""
    h32 = h.to(tl.float32)
    return tl.where((h32 >= low) & (h32 <= high), grad, 0.0).to(h.dtype)


@triton.jit(do_not_specialize=["pixels"])
def _hidden_forward(
    u_ptr, w1, b1, w2, b2, out, pixels, threshold,
    C: tl.constexpr, D: tl.constexpr, BIAS1: tl.constexpr, BIAS2: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    channels = tl.arange(0, BLOCK_C)
    u = _load_rows(u_ptr, rows, channels, pixels, C)
    total = tl.zeros([BLOCK_N, BLOCK_C], tl.float32)
    for start in range(0, D, BLOCK_D):
        units = start + tl.arange(0, BLOCK_D)
        tile1, tile2 = _load_weights(w1, w2, units, channels, C, D)
        spikes = _fire(_hidden(u, tile1, b1, units, D, BIAS1), threshold)
        total = tl.dot(spikes, tl.trans(tile2), total)
    if BIAS2:
        total += tl.load(b2 + channels, mask=channels < C, other=0.0).to(tl.float32)[None, :]
    inside = (rows[:, None] < pixels) & (channels[None, :] < C)
    tl.store(out + rows[:, None] * C + channels[None, :], total.to(u.dtype), mask=inside)


@triton.jit(do_not_specialize=["pixels"])
def _hidden_backward_input(
    u_ptr, grad_ptr, w1, b1, w2, out, pixels, low, high,
    C: tl.constexpr, D: tl.constexpr, BIAS1: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    channels = tl.arange(0, BLOCK_C)
    u = _load_rows(u_ptr, rows, channels, pixels, C)
    grad = _load_rows(grad_ptr, rows, channels, pixels, C)
    total = tl.zeros([BLOCK_N, BLOCK_C], tl.float32)
    for start in range(0, D, BLOCK_D):
        units = start + tl.arange(0, BLOCK_D)
        tile1, tile2 = _load_weights(w1, w2, units, channels, C, D)
        h = _hidden(u, tile1, b1, units, D, BIAS1)
        grad_h = _through(h, tl.dot(grad, tile2), low, high)
        total = tl.dot(grad_h, tl.trans(tile1), total)
    inside = (rows[:, None] < pixels) & (channels[None, :] < C)
    tl.store(out + rows[:, None] * C + channels[None, :], total.to(u.dtype), mask=inside)


@triton.jit(do_not_specialize=["pixels", "tiles"])
def _hidden_backward_weights(
    u_ptr, grad_ptr, w1, b1, w2, sums1, sums2, sums_b, pixels, tiles, threshold, low, high,
    C: tl.constexpr, D: tl.constexpr, BIAS1: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Program (i, j): some units, and the pixels of the j-th share of them all."""
    units = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    share = tl.program_id(1)
    channels = tl.arange(0, BLOCK_C)
    tile1, tile2 = _load_weights(w1, w2, units, channels, C, D)
    total1 = tl.zeros([BLOCK_D, BLOCK_C], tl.float32)
    total2 = tl.zeros([BLOCK_D, BLOCK_C], tl.float32)
    total_b = tl.zeros([BLOCK_D], tl.float32)
    first = share.to(tl.int64) * tiles * BLOCK_N
    for tile in range(tiles):
        rows = first + tile * BLOCK_N + tl.arange(0, BLOCK_N)
        u = _load_rows(u_ptr, rows, channels, pixels, C)
        grad = _load_rows(grad_ptr, rows, channels, pixels, C)
        h = _hidden(u, tile1, b1, units, D, BIAS1)
        grad_h = _through(h, tl.dot(grad, tile2), low, high)
        spikes = _fire(h, threshold)
        total1 = tl.dot(tl.trans(grad_h), u, total1)
        total2 = tl.dot(tl.trans(spikes), grad, total2)
        total_b += tl.sum(grad_h.to(tl.float32), 0)
    inside = (units[:, None] < D) & (channels[None, :] < C)
    where = (share * D + units[:, None]).to(tl.int64) * C + channels[None, :]
    tl.store(sums1 + where, total1, mask=inside)
    tl.store(sums2 + where, total2, mask=inside)
    tl.store(sums_b + share * D + units, total_b, mask=units < D)


def _tile(channels: int, *, weights: bool = False) -> dict[str, int]:
    """A tile of BLOCK_N pixels, BLOCK_D units and all channels, and how a program runs; measured on an H200."""
    block_c = max(16, triton.next_power_of_2(channels))
    units = 32 if weights and block_c > 64 else 64  # two totals of so many units and all channels stay in registers
    return {"BLOCK_N": 64, "BLOCK_D": units, "BLOCK_C": block_c, "num_warps": 4, "num_stages": 3 if weights else 2}


class HiddenMap:
    """``p = PW2(s(PW1(u)))`` of one slice at a time, and its backward pass.

    Args:
        weight1, bias1: of PW1, (D, C, 1, 1) and (D,), or no bias, of the dtype to compute in.
        weight2, bias2: of PW2, (C, D, 1, 1) and (C,), likewise.
        threshold, low, high: of the neuron and its surrogate's window.
    """

    def __init__(
        self, weight1: Tensor, bias1: Tensor | None, weight2: Tensor, bias2: Tensor | None,
        threshold: float, low: float, high: float,
    ) -> None:  # fmt: skip
        self.units, self.channels = weight1.shape[:2]
        self.weight1, self.weight2 = weight1.flatten(1).contiguous(), weight2.flatten(1).contiguous()
        self.bias1, self.bias2 = bias1, bias2
        self.threshold, self.low, self.high = threshold, low, high

    def __call__(self, u: Tensor) -> Tensor:
        """p of u, both (b, C, H, W) in channels-last layout."""
        out, rows = torch.empty_like(u), u.numel() // self.channels
        tile = _tile(self.channels)
        _hidden_forward[(triton.cdiv(rows, tile["BLOCK_N"]),)](
            u, self.weight1, self.bias1, self.weight2, self.bias2, out, rows, self.threshold,
            C=self.channels, D=self.units, BIAS1=self.bias1 is not None, BIAS2=self.bias2 is not None, **tile,
        )  # fmt: skip
        return out

    def backward_input(self, u: Tensor, grad: Tensor) -> Tensor:
        """dL/du from dL/dp, (b, C, H, W)."""
        out, rows = torch.empty_like(u), u.numel() // self.channels
        tile = _tile(self.channels)
        _hidden_backward_input[(triton.cdiv(rows, tile["BLOCK_N"]),)](
            u, grad, self.weight1, self.bias1, self.weight2, out, rows, self.low, self.high,
            C=self.channels, D=self.units, BIAS1=self.bias1 is not None, **tile,
        )  # fmt: skip
        return out

    def backward_weights(self, u: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """dL/dW1 (D, C), dL/db1 (D,) and dL/dW2 (C, D), float32."""
        rows, tile = u.numel() // self.channels, _tile(self.channels, weights=True)
        blocks = triton.cdiv(self.units, tile["BLOCK_D"])
        tiles = triton.cdiv(rows, tile["BLOCK_N"])
        shares = max(1, min(tiles, PROGRAMS // blocks))
        each = triton.cdiv(tiles, shares)
        sums = u.new_empty((2, shares, self.units, self.channels), dtype=torch.float32)
        sums_b = u.new_empty((shares, self.units), dtype=torch.float32)
        _hidden_backward_weights[(blocks, shares)](
            u, grad, self.weight1, self.bias1, self.weight2, sums[0], sums[1], sums_b, rows, each,
            self.threshold, self.low, self.high,
            C=self.channels, D=self.units, BIAS1=self.bias1 is not None, **tile,
        )  # fmt: skip
        grad1, grad2 = sums.sum(1)
        return grad1, sums_b.sum(0), grad2.t()
