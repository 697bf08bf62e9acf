"""Binary spikes, their surrogate gradient, and the 2-bit codes that are all a backward pass needs of a state."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

THRESHOLD = 0.5
SURROGATE_LOW, SURROGATE_HIGH = 0.0, 1.0

# One value inside each of the four ranges v < 0, [0, 0.5), [0.5, 1], v > 1, in the order of their codes.
_REPRESENTATIVES = (-1.0, 0.25, 0.75, 2.0)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, potential: Tensor) -> Tensor:
        ctx.save_for_backward((potential >= SURROGATE_LOW) & (potential <= SURROGATE_HIGH))
        return (potential >= THRESHOLD).to(potential.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (inside,) = ctx.saved_tensors
        return grad_outputs[0] * inside


def spike(potential: Tensor) -> Tensor:
    """Threshold a membrane potential: ``s(v) = 1 if v >= 0.5 else 0``.

    The backward pass uses the rectangular surrogate ``ds/dv = 1 on 0 <= v <= 1, else 0`` (Hu et al., ICML 2024).
    There is no leak and no reset.

    Args:
        potential: any shape, floating point.

    Returns:
        Zeros and ones of the same shape and dtype.
    """
    return _Spike.apply(potential)  # type: ignore[no-any-return]


class PackedState(NamedTuple):
    """The 2-bit codes of a state, four elements to a byte, and what is needed to lay it out again as it was."""

    bits: Tensor
    shape: torch.Size
    dtype: torch.dtype
    memory_format: torch.memory_format


class SpikeCode:
    """Keeps of a state which of the four ranges v < 0, [0, 0.5), [0.5, 1], v > 1 each element lies in.

    A function that looks at a state only through :func:`spike` has the same value, bit for bit, and the same gradient
    on the state and on ``decode(encode(state))``, in 1/16 of the bytes of a float32 state.
    """

    def encode(self, state: Tensor) -> PackedState:
        """Pack ``state`` (any shape, floating point) into ``ceil(numel / 4)`` bytes; NaN counts as v < 0."""
        memory_format = _memory_format(state)
        flat = state.permute(0, 2, 3, 1).reshape(-1) if memory_format is torch.channels_last else state.reshape(-1)
        codes = (flat >= SURROGATE_LOW).to(torch.uint8)
        codes += flat >= THRESHOLD
        codes += flat > SURROGATE_HIGH
        quarter = -(-codes.numel() // 4)
        # Element i shares its byte with i + quarter, i + 2 quarter, ...: every operation below is on contiguous memory.
        lanes = torch.nn.functional.pad(codes, (0, 4 * quarter - codes.numel())).view(4, quarter)
        bits = lanes[0] | (lanes[1] << 2) | (lanes[2] << 4) | (lanes[3] << 6)
        return PackedState(bits, state.shape, state.dtype, memory_format)

    def decode(self, packed: PackedState) -> Tensor:
        """A state with one fixed value for each range: shape, dtype and memory layout are those of the encoded one."""
        shifts = torch.tensor([[0], [2], [4], [6]], dtype=torch.uint8, device=packed.bits.device)
        codes = (packed.bits >> shifts) & 3
        values = torch.tensor(_REPRESENTATIVES, dtype=packed.dtype, device=packed.bits.device)
        flat = values[codes.view(-1)[: packed.shape.numel()].int()]
        if packed.memory_format is torch.channels_last:
            batch, channels, height, width = packed.shape
            return flat.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return flat.view(packed.shape)


def _memory_format(tensor: Tensor) -> torch.memory_format:
    if tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
