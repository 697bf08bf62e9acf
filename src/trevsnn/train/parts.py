"""All parts of the data that a run will read, listed and compared before its first step."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_fabric import Fabric

from trevsnn.data.part import Part
from trevsnn.data.sets import load, splits
from trevsnn.errors import RunError, listed
from trevsnn.run.config import RunConfig


def load_parts(config: RunConfig, fabric: Fabric) -> dict[str, Part]:
    """The parts of a run's data by their names: "train", "val" and, where there is one, "test".

    Raises:
        RunError: one cannot be listed, or has other classes or channels than the training part.
        UsageError: as :func:`trevsnn.data.sets.load`.
    """
    parts: dict[str, Part] = {}
    for split in splits(config.data):
        with fabric.rank_zero_first():  # which downloads the data, and fills the cache of frames
            parts[split] = load(config.data, split, config.model.timesteps)
    check_alike(parts)
    return parts


def check_alike(parts: Mapping[str, Part]) -> None:
    """Check that all parts have the classes, in their order, and the channels of the training part.

    Raises:
        RunError: one has not, or is empty.
    """
    train = parts["train"]
    for name, part in parts.items():
        if not len(part):
            raise RunError(f"the part {name} holds nothing.")
        lacking = [other for other in train.classes if other not in part.classes]
        strange = [other for other in part.classes if other not in train.classes]
        if lacking or strange:
            lacks = f"lacks {listed(lacking)}" if lacking else ""
            has = f"has {listed(strange)}" if strange else ""
            raise RunError(
                f"the part {name} has other classes than train: it {' and '.join(filter(None, (lacks, has)))}."
            )
        if part.classes != train.classes:
            raise RunError(f"the part {name} has the classes of train in another order.")
        if part.channels != train.channels:
            raise RunError(f"the part {name} has {part.channels} channels, and train {train.channels}.")
