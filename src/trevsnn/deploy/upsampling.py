"""Nearest-neighbour upsampling, pixel by pixel, for graphs whose own operators may take others than PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(before: int, after: int) -> Tensor:
    """Which pixel each one is taken from by PyTorch's nearest-neighbour interpolation along an axis, (after,), int64:
    ``min(floor(i * (before / after)), before - 1)`` with the quotient and the product in float32."""
    return (torch.arange(after, dtype=torch.float32) * (before / after)).floor().long().clamp(max=before - 1)
