"""Whether this package's Triton kernels can take a tensor; plain operations, which they agree with, are there for the rest."""

from __future__ import annotations

import functools
import importlib.util
import os

import torch
from torch import Tensor

#: Set to 0, this variable of the environment turns all kernels off.
VARIABLE = "TREVSNN_KERNELS"


@functools.cache
def has_triton() -> bool:
    """Whether Triton can be imported: it comes with PyTorch on Linux."""
    return importlib.util.find_spec("triton") is not None


def turned_off() -> bool:
    """Whether the environment says so."""
    return os.environ.get(VARIABLE) == "0"


def takes_kernels(tensor: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether a tensor lies on a CUDA device, its numbers, or those of ``dtype`` made of it, have 16 or 32 bits, and kernels
    are there and not turned off."""
    return (
        tensor.is_cuda
        and tensor.numel() > 0
        and type(tensor) in (Tensor, torch.nn.Parameter)  # not a fake one
        and (dtype or tensor.dtype) in (torch.float32, torch.float16, torch.bfloat16)
        and has_triton()
        and not turned_off()
    )
