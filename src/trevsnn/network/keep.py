"""How much memory ``exact`` may take so that it computes less again.

Nothing here loads PyTorch before a network runs, so that a mistake in a config is reported at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

PartName = Literal["codes", "projected", "links"]

#: Of an amount of memory, in bytes.
UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}
_FORM = re.compile(rf"(\d+(?:\.\d+)?) ?(%|{'|'.join(UNITS)})(/item)?")


def check_keep(text: object) -> None:
    """Raise ValueError unless this says an amount of memory as :func:`bytes_to_keep` reads it."""
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    if match is None or (match[2] == "%" and (match[3] or float(match[1]) > 100)):
        raise ValueError(
            f"keep is {text!r}; give an amount of memory, '4GB', that of each picture or clip of a batch, '12MB/item', or a "
            f"share of the device's memory, '30%'. Units are {', '.join(UNITS)}."
        )


def bytes_to_keep(text: str, batch: int, device: torch.device) -> int:
    """What may be kept for a batch on a device, of an amount that :func:`check_keep` accepts."""
    match = _FORM.fullmatch(text)
    assert match is not None
    amount = float(match[1])
    if match[2] == "%":
        return int(amount / 100 * _memory_of(device))
    return int(amount * UNITS[match[2]] * (batch if match[3] else 1))


class Part(NamedTuple):
    """Something that a level's first pass can keep at each timestep.

    Attributes:
        level: l.
        name: "codes" of the hidden maps, "projected", the outputs of PW2, or "links", the convolved maps of the links.
        size: its bytes.
        spared: multiply-accumulates that the second pass does not run again.
    """

    level: int
    name: PartName
    size: int
    spared: int


def parts_to_keep(parts: Sequence[Sequence[Part]], budget: int) -> list[set[tuple[int, PartName]]]:
    """For each timestep the (level, name) that are kept: those first that spare most for their bytes, of equal ones those of
    the latest timestep, to which the backward pass comes first; each that fits into what is left.

    Args:
        parts: of each timestep.
        budget: bytes.
    """
    kept: list[set[tuple[int, PartName]]] = [set() for _ in parts]
    queue = [(part.spared / part.size, t, part) for t, row in enumerate(parts) for part in row]
    for _, t, part in sorted(queue, key=lambda entry: entry[:2], reverse=True):
        if part.size <= budget:
            kept[t].add((part.level, part.name))
            budget -= part.size
    return kept


def _memory_of(device: torch.device) -> int:
    """Bytes of a device's whole memory."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
