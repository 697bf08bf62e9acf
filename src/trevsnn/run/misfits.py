"""What of a config does not fit its data: the kind of the input, classes, channels, items. Nothing here loads PyTorch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from trevsnn.data.config import EVENT_SETS, PICTURE_FOLDERS, DataConfig
from trevsnn.errors import RunError
from trevsnn.run.config import RunConfig


class Facts(NamedTuple):
    """What is known of a data set; None for what is not known before it is read.

    Attributes:
        classes: their number.
        channels: 1, 2 or 3.
        items: of the training part.
    """

    classes: int | None = None
    channels: int | None = None
    items: int | None = None


class Misfit(NamedTuple):
    """A sentence on what does not fit, and the options that it is about."""

    options: tuple[str, ...]
    sentence: str


#: Sets that are the same everywhere. Of some the items depend on the files at hand.
KNOWN = {
    "digits": Facts(10, 1, 1437),
    "mnist": Facts(10, 1),
    "fashion-mnist": Facts(10, 1),
    "shards": Facts(None, 3),
    "dvs128-gesture": Facts(11, 2),
}


def facts_of(config: DataConfig) -> Facts:
    """What is known of a set by its name and its folders, without reading an item."""
    if config.name in EVENT_SETS:
        return Facts(2, 2) if config.task == "direction" else KNOWN.get(config.name) or Facts(_count_classes(config), 2)
    if config.name in KNOWN:
        return KNOWN[config.name]
    classes = _count_classes(config)
    if classes is None and config.name not in PICTURE_FOLDERS:
        classes = 10 if config.name == "cifar-10" else 100
    return Facts(classes, 1 if config.grey else 3)


def _count_classes(config: DataConfig) -> int | None:
    """The classes of a set that is a folder; None where they are not known."""
    if config.root is None or not Path(config.root).is_dir():
        return None
    root = Path(config.root)
    if config.name in EVENT_SETS:
        from trevsnn.data.events.sets import classes_of  # with NumPy

        with suppress(RunError):  # which is said when the recordings are listed
            return len(classes_of(root))
        return None
    from trevsnn.data.listing import find_parts, list_classes

    parts = find_parts(root)
    if "train" in parts:
        return len(list_classes(parts["train"]))
    return len(list_classes(root)) if config.name == "folder" and not parts else None


def idle(config: RunConfig) -> list[Misfit]:
    """Options of a new run that do nothing beside others of its own. Earlier versions took them, so that their runs go on."""
    data, found = config.data, list[Misfit]()
    if data.crop == "pad" and data.crop_scale != DataConfig.crop_scale:
        sentence = "data.crop_scale is of data.crop resized, and does nothing with pad: leave it out, or set data.crop to resized."
        found.append(Misfit(("data.crop_scale", "data.crop"), sentence))
    if data.crop == "resized" and data.crop_padding > 0:
        sentence = (
            "data.crop_padding is of data.crop pad, and does nothing with resized: set it to 0, or data.crop to pad."
        )
        found.append(Misfit(("data.crop_padding", "data.crop"), sentence))
    return found


def misfits(config: RunConfig, facts: Facts) -> list[Misfit]:
    """All that does not fit between a config and what is known of its data."""
    model, data, name = config.model, config.data, config.data.name
    found: list[Misfit] = []
    recordings = name in EVENT_SETS
    needed = "event" if recordings or data.rows else "image"
    if model.input != needed:
        kind = "recordings" if recordings else "seen row by row" if data.rows else "pictures"
        found.append(
            Misfit(
                ("model.input", "data.name", "data.rows"),
                f"model.input is {model.input!r}, but {name} are {kind}: set model.input to {needed}.",
            )
        )
    if facts.classes not in (None, model.num_classes):
        found.append(
            Misfit(
                ("model.num_classes", "data.name", "data.task"),
                f"model.num_classes is {model.num_classes}, but {name} has {facts.classes}: set it to {facts.classes}.",
            )
        )
    if facts.channels not in (None, model.in_chans):
        what = {1: "grey", 2: "of two polarities", 3: "in colour"}[facts.channels or 0]
        found.append(
            Misfit(
                ("model.in_chans", "data.name", "data.grey"),
                f"model.in_chans is {model.in_chans}, but {name} are {what}: set it to {facts.channels}.",
            )
        )
    if facts.channels == 1 and (data.auto_augment or data.color_jitter):
        found.append(
            Misfit(
                ("data.auto_augment", "data.color_jitter", "data.name"),
                f"data.auto_augment and data.color_jitter are for colours, but {name} are grey: leave them out.",
            )
        )
    if facts.items is not None and config.batch_size > facts.items:
        found.append(
            Misfit(
                ("batch_size", "data.name"),
                f"batch_size is {config.batch_size}, more than the {facts.items} training items: lower it.",
            )
        )
    return found
