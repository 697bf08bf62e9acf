"""Device and autocast of a pass, kept for its backward pass."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import torch


def widest(device: torch.device) -> torch.dtype:
    """float64, or float32 on MPS, which has no more."""
    return torch.float32 if device.type == "mps" else torch.float64


class Precision(NamedTuple):
    """The device of a pass and its autocast."""

    device: torch.device
    enabled: bool
    dtype: torch.dtype

    @staticmethod
    def current(device: torch.device) -> Precision:
        """What holds now on ``device``."""
        return Precision(device, torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type))

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast as it was, without a cache: weights cast in a pass without a graph must not enter one with a graph."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.enabled, cache_enabled=False)

    def compute_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """In which dtype autocast has a product of ``dtype`` computed; it leaves float64 alone."""
        return self.dtype if self.enabled and dtype is not torch.float64 else dtype
