"""How much memory ``exact`` may take so that it computes less again.

Nothing here loads PyTorch before a network runs, so that a mistake in a config is reported at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}
_FORM = re.compile(rf"(\d+(?:\.\d+)?) ?(%|{'|'.join(_UNITS)})(/item)?")


def check_keep(text: object) -> None:
    """Raise ValueError unless this says an amount of memory as :func:`bytes_to_keep` reads it."""
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if match is None or (match[2] == "%" and (match[3] or float(match[1]) > 100)):
        raise ValueError(
            f"keep is {text!r}; give an amount of memory, '4GB', that of each picture or clip of a batch, '12MB/item', or a "
            "share of the device's memory, '30%'."
        )


def bytes_to_keep(text: str, batch: int, device: torch.device) -> int:
    """What may be kept for a batch on a device, of an amount that :func:`check_keep` accepts."""
    match = _FORM.fullmatch(text)
    assert match is not None
    amount = float(match[1])
    if match[2] == "%":
        return int(amount / 100 * _memory_of(device))
    return int(amount * _UNITS[match[2]] * (batch if match[3] else 1))


def pieces_to_keep(bytes_by_level: Sequence[int | None], timesteps: int, budget: int) -> set[tuple[int, int]]:
    """The (t, level) that are kept: as many as fit, in the order in which the backward pass comes to them and frees them.

    Args:
        bytes_by_level: of what there is to keep of each level at one timestep; None where there is nothing.
        timesteps: T.
        budget: bytes.
    """
    kept = set()
    for t in reversed(range(timesteps)):
        for level in reversed(range(len(bytes_by_level))):
            needed = bytes_by_level[level]
            if needed is not None and needed <= budget:
                kept.add((t, level))
                budget -= needed
    return kept


def _memory_of(device: torch.device) -> int:
    """Bytes of a device's whole memory."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
