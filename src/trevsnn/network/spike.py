"""Binary spikes, their surrogate gradient, and the 2-bit codes that are all a backward pass needs of a state.

Comparisons are written so that they give numbers of the operand's own dtype: on a CPU those run vectorised, while
comparisons that give booleans, and products with booleans, are five to ten times slower.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

THRESHOLD = 0.5
SURROGATE_LOW, SURROGATE_HIGH = 0.0, 1.0

_PACK_ELEMENTS = 2**21  # at a time, so that the floats in between stay small


class _Spike(torch.autograd.Function):
    """s(v) and its surrogate gradient, one operation each way: keeping the potential costs a byte per element more in bfloat16 than keeping whether it
    lies in the window, and takes a third of the time."""

    @staticmethod
    def forward(ctx: Any, potential: Tensor) -> Tensor:
        ctx.save_for_backward(potential)
        return _fire(potential)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        """``dL/dv = ds/dv * dL/ds`` with ``ds/dv = 1 on 0 <= v <= 1, else 0``."""
        (potential,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad_outputs[0], potential, *_just_outside(potential.dtype))


def spike(potential: Tensor) -> Tensor:
    """Threshold a membrane potential: ``s(v) = 1 if v >= 0.5 else 0``.

    The backward pass uses the rectangular surrogate ``ds/dv = 1 on 0 <= v <= 1, else 0`` (Hu et al., ICML 2024).
    There is no leak and no reset. NaN does not fire, and may let a gradient pass.

    Args:
        potential: any shape, floating point.

    Returns:
        Zeros and ones of the same shape and dtype.
    """
    return _Spike.apply(potential)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class PackedState:
    """The 2-bit codes of a state, a row of bytes for each of its first axis, and how to lay it out again.

    A function that looks at a state only through :func:`spike` has the same value, bit for bit, and the same gradient
    on the state and on ``decode()``, in 1/16 of the bytes of a float32 state.
    """

    bits: Tensor
    shape: torch.Size
    dtype: torch.dtype
    memory_format: torch.memory_format

    def __getitem__(self, rows: slice) -> PackedState:
        """The codes of some rows of the first axis (those of a state with two axes at least)."""
        bits = self.bits[rows]
        return replace(self, bits=bits, shape=torch.Size((bits.shape[0], *self.shape[1:])))

    def decode(self) -> Tensor:
        """A state with -1, 0.25, 0.75, 2 for the four ranges, of the packed one's shape, dtype and memory layout."""
        spikes, inside = self.spikes(self.dtype), self.window(self.dtype)
        return 3 * spikes - 1 + inside * (1.25 - 2.5 * spikes)

    def seen(self) -> Tensor:
        return self.spikes(self.dtype)

    def pull_back(self, gradient: Tensor) -> Tensor:
        return gradient * self.window(gradient.dtype)

    def spikes(self, dtype: torch.dtype) -> Tensor:
        """s(v) as zeros and ones of ``dtype``."""
        return self._layout(self._codes().bitwise_and_(1).to(dtype))

    def window(self, dtype: torch.dtype) -> Tensor:
        """The surrogate ds/dv as zeros and ones of ``dtype``."""
        return self._layout(self._codes().bitwise_right_shift_(1).to(dtype))

    def _codes(self) -> Tensor:
        return (self.bits[:, None] >> _shifts(self.bits.device)).bitwise_and_(3).flatten(1)

    def _layout(self, rows: Tensor) -> Tensor:
        values = rows[:, : self.shape.numel() // max(1, rows.shape[0])]
        if self.memory_format is torch.channels_last:
            batch, channels, height, width = self.shape
            return values.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return values.reshape(self.shape)


def pack(state: Tensor) -> PackedState:
    """Keep of a state which of the four ranges v < 0, [0, 0.5), [0.5, 1], v > 1 each element lies in.

    A code is s(v) plus twice ds/dv. Every row of the first axis takes a quarter of its elements in bytes, rounded up;
    NaN counts as v < 0.

    Args:
        state: any shape, floating point.
    """
    memory_format = _memory_format(state)
    rows = state.permute(0, 2, 3, 1) if memory_format is torch.channels_last else state
    rows = rows.reshape(1 if state.dim() < 2 else state.shape[0], -1)
    at_a_time = max(1, _PACK_ELEMENTS // max(1, rows.shape[1]))
    parts = [_pack_rows(part) for part in rows.split(at_a_time)]
    bits = parts[0] if len(parts) == 1 else torch.cat(parts)
    return PackedState(bits, state.shape, state.dtype, memory_format)


def _pack_rows(rows: Tensor) -> Tensor:
    # A comparison's result as bytes: bool's and uint8's zeros and ones are the same.
    codes = _window(rows).to(torch.bool).view(torch.uint8)
    codes.add_(codes).bitwise_or_(_fire(rows).to(torch.bool).view(torch.uint8))
    quarter = -(-codes.shape[1] // 4)
    if codes.shape[1] != 4 * quarter:
        codes = torch.nn.functional.pad(codes, (0, 4 * quarter - codes.shape[1]))
    # Element i shares its byte with i + quarter, i + 2 quarter, ...: every operation is on contiguous pieces.
    lanes = codes.view(-1, 4, quarter) << _shifts(codes.device)
    bits = lanes[:, 0] | lanes[:, 1]
    return bits.bitwise_or_(lanes[:, 2]).bitwise_or_(lanes[:, 3])


def spikes_of(state: Tensor | PackedState, dtype: torch.dtype) -> Tensor:
    """s(v) as zeros and ones of ``dtype``, outside autograd."""
    return state.spikes(dtype) if isinstance(state, PackedState) else _fire(state).to(dtype)


def window_of(state: Tensor | PackedState, dtype: torch.dtype) -> Tensor:
    """The surrogate ds/dv as zeros and ones of ``dtype``, outside autograd."""
    return state.window(dtype) if isinstance(state, PackedState) else _window(state).to(dtype)


def _fire(potential: Tensor) -> Tensor:
    return torch.ge(potential, THRESHOLD, out=torch.empty_like(potential))


def _window(potential: Tensor) -> Tensor:
    return potential.clamp(SURROGATE_LOW, SURROGATE_HIGH).eq_(potential)


def _just_outside(dtype: torch.dtype) -> tuple[float, float]:
    """The neighbours of the surrogate's closed window, 0 and 1: PyTorch's is open."""
    info = torch.finfo(dtype)
    return SURROGATE_LOW - info.tiny * info.eps, SURROGATE_HIGH + info.eps


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(0, 8, 2, dtype=torch.uint8, device=device).view(4, 1)


def _memory_format(tensor: Tensor) -> torch.memory_format:
    if tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


class _SpikeView:
    def __call__(self, state: Tensor) -> Tensor:
        return spike(state)

    def code(self, state: Tensor) -> PackedState:
        return pack(state)


SPIKE = _SpikeView()
