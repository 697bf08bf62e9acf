"""The registry of data sets: by a set's name its parts, how they are loaded, and the transform of their items."""

from __future__ import annotations

from typing import Any

from trevsnn.data.config import DataConfig, Split
from trevsnn.data.events.sets import SENSORS, load_events
from trevsnn.data.events.transforms import frames_transform
from trevsnn.data.part import About, Part
from trevsnn.data.pictures.folders import folder_splits, load_folder
from trevsnn.data.pictures.in_memory import load_in_memory
from trevsnn.data.pictures.transforms import picture_transform

EVENT_SETS = (*SENSORS, "recordings")
FOLDER_SETS = ("imagenet", "tiny-imagenet", "folder")


def is_event(config: DataConfig) -> bool:
    """Whether the set is of recordings, not of pictures."""
    return config.name in EVENT_SETS


def splits(config: DataConfig) -> list[Split]:
    """The parts that the data set has.

    Raises:
        RunError: the set is a folder of pictures without train, or without val and test.
    """
    if config.name == "digits":
        return ["train", "val"]
    return folder_splits(config) if config.name in FOLDER_SETS else ["train", "val", "test"]


def load(config: DataConfig, split: Split, timesteps: int) -> Part:
    """Load one part of the data set that ``config`` names.

    Args:
        config: data.* of the run.
        split: the part, of :func:`splits`.
        timesteps: T, the frames of a recording; pictures do not depend on it.

    Raises:
        RunError: there is no such part, or files are missing or damaged.
        UsageError: the library that reads the recordings is not installed.
    """
    if is_event(config):
        return load_events(config, split, timesteps)
    return load_folder(config, split) if config.name in FOLDER_SETS else load_in_memory(config, split)


def transform_of(config: DataConfig, about: About, *, training: bool) -> Any:
    """The transform of the set's items, from what :meth:`trevsnn.data.part.Part.read` gives to a float32 tensor."""
    if is_event(config):
        return frames_transform(config, training=training)
    return picture_transform(config, about, training=training)
