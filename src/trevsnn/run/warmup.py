"""The warm-up of a recipe that is trained for fewer epochs than it says."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any


def shortened_warmup(base: Mapping[str, Any], values: Mapping[str, Any], given: Container[str]) -> float | None:
    """The length of the warm-up, in proportion to the epochs, where there are fewer than in what a config begins from.

    Args:
        base: values by dotted names that the config begins from.
        values: those that options change, base or not.
        given: names of the options.

    Returns:
        ``optim.warmup_epochs``, or None for that of the base: where the epochs are not fewer, the warm-up is given, alone or in
        ``optim``, or the published training is asked for, of which its length is a part.
    """
    if "optim.warmup_epochs" in given or "optim" in given or values.get("published", base.get("published")):
        return None
    before, warmup = base.get("epochs"), base.get("optim.warmup_epochs")
    epochs = values.get("epochs", before)
    if before is None or warmup is None or not 1 <= epochs < before:
        return None
    return warmup * epochs / before
