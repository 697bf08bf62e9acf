"""Upsampling in a network that is exported for items of any height and width."""

from __future__ import annotations

import torch
from torch import Tensor


def has_free_size(maps: Tensor) -> bool:
    """Whether height and width are unknown: the network is being exported for all of them."""
    return isinstance(maps.shape[2], torch.SymInt)


def fuse_any_size(from_below: Tensor, *from_above: Tensor) -> Tensor:
    """As :func:`trevsnn.network.blocks.fuse`, in operations that exporters keep exact for every height and width.

    Resize of ONNX divides where PyTorch multiplies, and so may take another pixel at sizes such as 21 from 6.
    """
    total = from_below
    for maps in from_above:
        rows, columns = (nearest(maps.shape[axis], from_below.shape[axis]) for axis in (2, 3))
        total = total + maps.index_select(2, rows).index_select(3, columns)
    return total


def nearest(before: int, after: int) -> Tensor:
    """Which pixel each one is taken from by PyTorch's nearest-neighbour interpolation along an axis, (after,), int64:
    ``min(floor(i * (before / after)), before - 1)`` with the quotient and the product in float32."""
    return (torch.arange(after, dtype=torch.float32) * (before / after)).floor().long().clamp(max=before - 1)
