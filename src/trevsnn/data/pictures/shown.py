"""How much smaller or larger than they are pictures are shown to a network."""

from __future__ import annotations

from statistics import median

from trevsnn.data.config import EVENT_SETS, DataConfig
from trevsnn.data.part import Part
from trevsnn.errors import UnreadableError
from trevsnn.sizes import size_text

LOOKED_AT = 50  # pictures, evenly spread over the part
FACTOR = 2  # of each side, from which on it is said


def size_warning(part: Part, config: DataConfig) -> str | None:
    """A sentence where pictures are shrunk or enlarged by more than ``FACTOR``, by the sizes in a few headers; else None."""
    if config.name in EVENT_SETS:
        return None
    sizes: list[tuple[int, int]] = []
    count = min(LOOKED_AT, len(part))
    for number in range(count):
        try:
            width, height = part.open(number * len(part) // count).size
        except UnreadableError:  # training says so
            continue
        sizes.append((height, width))
    if not sizes:
        return None
    height, width = median(h for h, _ in sizes), median(w for _, w in sizes)
    shown_HW = config.size_HW
    scale = max(shown_HW[0] / height, shown_HW[1] / width)  # a picture is resized so that it covers the input
    if 1 / FACTOR <= scale <= FACTOR:
        return None
    change = f"shrunk to 1/{1 / scale:.1f}" if scale < 1 else f"enlarged {scale:.1f} times"
    return (
        f"pictures of about {height:g} x {width:g} (height x width) are shown at {size_text(shown_HW)}, {change}: "
        "data.image_size is what changes it."
    )
