"""Any labelled items as a trained network takes them: its own classes by their names, its channels, its normalisation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from trevsnn.data.config import PICTURE_FOLDERS, DataConfig, Split
from trevsnn.data.part import About, Part
from trevsnn.data.pictures.folders import is_without_train, load_without_train, parts_with_labels
from trevsnn.data.sets import load, splits
from trevsnn.errors import RunError, listed


class Matched(Part):
    """The items of a part, with the labels, channels and normalisation of a trained network.

    Args:
        part: the items.
        about: of the data that the network was trained on.

    Raises:
        RunError: the part's classes are not the network's.
    """

    def __init__(self, part: Part, about: About) -> None:
        self.part, self.shards_N = part, part.shards_N
        self.classes, self.channels, self.mean, self.std = about.classes, about.channels, about.mean, about.std
        _check_classes(part.classes, about.classes)
        index = {name: number for number, name in enumerate(about.classes)}
        self.labels_N = np.array([index[name] for name in part.classes], np.int64)[part.labels_N]

    def read(self, index: int) -> Any:
        """As that of the part, a picture as grey or RGB as the network's."""
        item = self.part.read(index)
        return item if self.part.channels == self.channels else item.convert("L" if self.channels == 1 else "RGB")

    def open(self, index: int) -> Any:
        return self.part.open(index) if self.part.channels == self.channels else self.read(index)

    def name(self, index: int) -> str:
        return self.part.name(index)

    def digest(self) -> str:
        return self.part.digest()


def _check_classes(found: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    missing, strange = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or strange:
        lacks = f"lack {listed(missing)}" if missing else ""
        has = f"have {listed(strange)}, which it does not know" if strange else ""
        raise RunError(
            f"the data's classes are not the network's: they {' and '.join(filter(None, (lacks, has)))}; name the class "
            "folders as the network's classes."
        )


def evaluated_splits(config: DataConfig) -> list[Split]:
    """As :func:`trevsnn.data.sets.splits`; a folder of pictures needs no train.

    Raises:
        RunError: as there.
    """
    if config.name in PICTURE_FOLDERS and is_without_train(config):
        return parts_with_labels(config)
    return splits(config)


def load_matched(config: DataConfig, split: Split, timesteps: int, about: About) -> Part:
    """As :func:`trevsnn.data.sets.load`, for a trained network, whose data ``about`` describes.

    Raises:
        RunError: as there; or the classes are not the network's.
        UsageError: as there.
    """
    if config.name in PICTURE_FOLDERS and about.channels == 1:  # read so, and not turned grey from 8 bits of colour
        config = replace(config, grey=True)
    if config.name in PICTURE_FOLDERS and is_without_train(config):
        return Matched(load_without_train(config, split), about)
    return Matched(load(config, split, timesteps), about)
