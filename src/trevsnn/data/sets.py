"""The registry of data sets: by a set's name its parts, how they are loaded, and the transform of their items."""

from __future__ import annotations

from typing import Any

from torchvision.transforms import v2

from trevsnn.data.config import EVENT_SETS, PICTURE_FOLDERS, DataConfig, Split
from trevsnn.data.events.sets import load_events, recording_splits
from trevsnn.data.events.transforms import frames_transform
from trevsnn.data.part import About, Part
from trevsnn.data.pictures.folders import folder_splits, load_folder
from trevsnn.data.pictures.in_memory import load_in_memory
from trevsnn.data.pictures.rows import Rows
from trevsnn.data.pictures.shards import load_shards, shard_splits
from trevsnn.data.pictures.transforms import picture_transform


def is_event(config: DataConfig) -> bool:
    """Whether the set is of recordings, not of pictures."""
    return config.name in EVENT_SETS


def is_sequence(config: DataConfig) -> bool:
    """Whether an item is a sequence of frames (T, C, H, W), not one map (C, H, W) for all timesteps."""
    return is_event(config) or config.rows


def splits(config: DataConfig) -> list[Split]:
    """The parts that the data set has.

    Raises:
        RunError: the set is a folder of pictures or shards without train, or without val and test; or there is no folder.
    """
    if config.name == "digits":
        return ["train", "val"]
    if config.name == "shards":
        return shard_splits(config)
    if is_event(config):
        return recording_splits(config)
    return folder_splits(config) if config.name in PICTURE_FOLDERS else ["train", "val", "test"]


def load(config: DataConfig, split: Split, timesteps: int) -> Part:
    """Load one part of the data set that ``config`` names.

    Args:
        config: data.* of the run.
        split: the part, of :func:`splits`.
        timesteps: T, the frames of a recording; parts of pictures do not depend on it.

    Raises:
        RunError: there is no such part, or files are missing or damaged.
        UsageError: the library that reads the recordings or shards is not installed.
    """
    if is_event(config):
        return load_events(config, split, timesteps)
    if config.name == "shards":
        return load_shards(config, split)
    return load_folder(config, split) if config.name in PICTURE_FOLDERS else load_in_memory(config, split)


def transform_of(config: DataConfig, about: About, timesteps: int, *, training: bool) -> Any:
    """The transform of the set's items, from what :meth:`trevsnn.data.part.Part.read` gives to a float32 tensor.

    Raises:
        UsageError: a picture has fewer rows than there are timesteps (``rows``).
    """
    if is_event(config):
        return frames_transform(config, training=training)
    pictures = picture_transform(config, about, training=training)
    return v2.Compose([pictures, Rows(timesteps, config.size_HW[0])]) if config.rows else pictures
