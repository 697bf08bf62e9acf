"""How many numbers a network has, known without taking their memory: its config may ask for any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

HEADER = 2**24  # bytes of a safetensors file beside its numbers, at most


def numbers_of(build: Callable[[], nn.Module]) -> int:
    """The numbers in the parameters and buffers of the module that ``build`` makes."""
    with torch.device("meta"):
        return sum(tensor.numel() for tensor in build().state_dict().values())


def check_weights_size(file: Path, numbers: int) -> None:
    """Check that a file of weights is as large as those of a network, before there is one.

    Args:
        file: safetensors.
        numbers: that the network has, of one byte each at least and eight at most.

    Raises:
        OSError: it is missing.
        ValueError: it is smaller or much larger.
    """
    size = file.stat().st_size
    if not numbers <= size <= 8 * numbers + HEADER:
        raise ValueError(f"it has {size:,} bytes, and the network of its config {numbers:,} numbers")
