"""The items of a folder's parts by name, as training on that folder takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from trevsnn.data.config import DataConfig, Split
from trevsnn.data.events.sets import list_recordings, recording_splits
from trevsnn.data.part import Part


def parts_of(config: DataConfig) -> list[Split]:
    """The parts of a folder of pictures, shards or recordings.

    Raises:
        RunError: as :func:`trevsnn.data.sets.splits`.
    """
    if config.name == "recordings":
        return recording_splits(config)
    from trevsnn.data.sets import splits  # it knows pictures, too, and takes seconds to load

    return splits(config)


def list_items(config: DataConfig, splits: Sequence[Split]) -> Iterator[tuple[Split, str, str]]:
    """Part, name and class of every item of some parts, in the order of training's own list.

    A name is the path of a file, or of a picture in a shard. Of a trial or a piece of a recording it is FILE@START-END, in
    microseconds of the file's own clock.

    Args:
        config: of a set named "folder", "shards" or "recordings": its root, and for recordings ``piece_ms`` and ``workers``.
        splits: the parts.

    Raises:
        RunError, UnreadableError, UsageError: as :func:`trevsnn.data.sets.load`; before the first item.
    """
    parts = [_part(config, split) for split in splits]
    return (
        (split, part.name(index), part.classes[label])
        for split, part in zip(splits, parts, strict=True)
        for index, label in enumerate(part.labels_N.tolist())
    )


def _part(config: DataConfig, split: Split) -> Part:
    if config.name == "recordings":
        return list_recordings(Path(str(config.root)), split, config.piece_ms, config.workers, config.convention)
    from trevsnn.data.sets import load

    return load(config, split, timesteps=1)
