"""Cutting a batch into slices.

A block without normalisation acts on each image alone, so it can run on a few images at a time; its temporaries shrink
by the number of slices. A library may pick another algorithm, with other rounding, for another batch size, so every
pass in every mode uses the same slices, and all of them see the same spikes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

#: Default of ``TRevSNNConfig.slice_bytes``: about a CPU's cache, and enough work to fill a GPU.
SLICE_BYTES_CPU, SLICE_BYTES_ACCELERATOR = 13 * 2**18, 128 * 2**20


def slices(batch: int, bytes_per_image: int, slice_bytes: int | None, device: torch.device) -> list[slice]:
    """Cut a batch into slices of as many images as fit into ``slice_bytes``, one at least; None for the default.

    A compiler gets one slice: it would unroll them all, and arranges memory in its own way.
    """
    if torch.compiler.is_compiling():
        return [slice(0, batch)]
    if slice_bytes is None:
        slice_bytes = SLICE_BYTES_CPU if device.type == "cpu" else SLICE_BYTES_ACCELERATOR
    images = max(1, slice_bytes // max(1, bytes_per_image))
    return [slice(start, min(batch, start + images)) for start in range(0, batch, images)]


def in_slices(function: Callable[[Tensor], Tensor], x: Tensor, rows: list[slice]) -> Tensor:
    """``function(x)``, computed slice by slice in plain torch operations."""
    if len(rows) == 1:
        return function(x)
    return torch.cat([function(part) for part in x.split(rows[0].stop)])


def gather(parts: Iterator[tuple[slice, Tensor]], batch: int) -> Tensor:
    """Put slices together as they come, so that no two copies of the whole are alive at a time."""
    whole: Tensor | None = None
    for rows, part in parts:
        if part.shape[0] == batch:
            return part
        if whole is None:
            whole = _empty(part, batch)
        whole[rows] = part
    assert whole is not None
    return whole


def _empty(like: Tensor, batch: int) -> Tensor:
    """An uninitialised tensor of ``batch`` rows with the dtype and memory layout of ``like``."""
    layout = torch.channels_last if like.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    shape = (batch, *like.shape[1:])
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)
