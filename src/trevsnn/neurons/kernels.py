"""Triton kernels of :class:`trevsnn.neurons.Spike` on a CUDA device, each tensor read and written once.

They give the bits of the plain operations in :mod:`trevsnn.neurons.spike`, which take five passes for a code and three for
what is read from one.
"""

# Triton's language is not typed.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportUnreachable=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _fire(v_ptr, out_ptr, elements, threshold, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(v_ptr + at, mask=at < elements, other=0.0).to(tl.float32)
    spikes = tl.where(v == v, tl.where(v >= threshold, 1.0, 0.0), v)
    tl.store(out_ptr + at, spikes.to(out_ptr.dtype.element_ty), mask=at < elements)


@triton.jit
def _code(v_ptr, bits_ptr, elements, quarter, threshold, low, high, BLOCK: tl.constexpr):
    """Of row i a block of bytes, each of four elements that lie a quarter of the row apart."""
    row, byte = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    bits = tl.zeros([BLOCK], tl.int32)
    for lane in tl.static_range(4):
        at = byte + lane * quarter
        there = (byte < quarter) & (at < elements)
        v = tl.load(v_ptr + row * elements + at, mask=there, other=0.0).to(tl.float32)
        code = tl.where(there & (v >= threshold), 1, 0) + tl.where(there & (v >= low) & (v <= high), 2, 0)
        bits += code << (2 * lane)
    tl.store(bits_ptr + row * quarter + byte, bits.to(tl.uint8), mask=byte < quarter)


@triton.jit
def _decode(
    bits_ptr, grad_ptr, out_ptr, elements, quarter, PLACE: tl.constexpr, TIMES: tl.constexpr, BLOCK: tl.constexpr
):
    """One bit of each code as a number, times a gradient if there is one."""
    row, byte = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    bits = tl.load(bits_ptr + row * quarter + byte, mask=byte < quarter, other=0).to(tl.int32)
    for lane in tl.static_range(4):
        at = byte + lane * quarter
        there = (byte < quarter) & (at < elements)
        value = ((bits >> (2 * lane + PLACE)) & 1).to(tl.float32)
        if TIMES:
            value *= tl.load(grad_ptr + row * elements + at, mask=there, other=0.0).to(tl.float32)
        tl.store(out_ptr + row * elements + at, value.to(out_ptr.dtype.element_ty), mask=there)


def fire(v: Tensor, threshold: float, out: Tensor) -> Tensor:
    """s(v) as zeros and ones, and NaN where v is, into ``out``, which has v's shape and strides, both dense, or is v."""
    _fire[(triton.cdiv(v.numel(), BLOCK),)](v, out, v.numel(), threshold, BLOCK=BLOCK)
    return out


def code(rows: Tensor, threshold: float, low: float, high: float) -> Tensor:
    """The codes (R, ceil(n / 4)), uint8, of rows (R, n), contiguous."""
    count, elements = rows.shape
    quarter = triton.cdiv(elements, 4)
    bits = torch.empty((count, quarter), dtype=torch.uint8, device=rows.device)
    _code[(count, triton.cdiv(quarter, BLOCK))](rows, bits, elements, quarter, threshold, low, high, BLOCK=BLOCK)
    return bits


def decode(bits: Tensor, elements: int, place: int, dtype: torch.dtype, times: Tensor | None = None) -> Tensor:
    """One bit of the codes (R, ceil(n / 4)) as zeros and ones (R, n) of ``dtype``, or times a tensor (R, n)."""
    count, quarter = bits.shape
    out = torch.empty((count, elements), dtype=dtype, device=bits.device)
    _decode[(count, triton.cdiv(quarter, BLOCK))](
        bits, times, out, elements, quarter, PLACE=place, TIMES=times is not None, BLOCK=BLOCK
    )
    return out
