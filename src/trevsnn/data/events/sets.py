"""Event-camera data sets and their parts: DVS128 Gesture, CIFAR10-DVS, N-MNIST, N-Caltech101, a user's recordings."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from trevsnn.data.config import DataConfig, Split
from trevsnn.data.events.excerpts import both_directions, cut_listing, file_of
from trevsnn.data.events.frames import EventFrames
from trevsnn.data.events.recordings import READERS
from trevsnn.data.listing import data_root, find_parts, list_classes, list_files, part_of
from trevsnn.data.part import FileList
from trevsnn.data.splitting import ordered_split, time_split
from trevsnn.errors import RunError

#: Width and height of the sensors in pixels.
SENSORS = {
    "dvs128-gesture": (128, 128), "cifar10-dvs": (128, 128), "n-mnist": (34, 34), "n-caltech101": (240, 180),
}  # fmt: skip
GESTURES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter clockwise",
    "left arm clockwise", "left arm counter clockwise", "arm roll", "air drums", "air guitar", "other gestures",
)  # fmt: skip


def load_events(config: DataConfig, split: Split, frames: int) -> EventFrames:
    """Read one part of an event data set, each recording as T frames.

    Folders train/CLASS and test/CLASS (N-MNIST has them) are used as they are; without val/CLASS, validation is a
    stratified tenth of train. Sets that are only CLASS folders (CIFAR10-DVS, N-Caltech101) have no official split: of
    each class, in the natural order of file names, the last tenth is for test and the tenth before for validation.
    DVS128 Gesture is split by person, by its own trials_to_train.txt and trials_to_test.txt; the last tenth of the
    training people is for validation. Pieces of recordings (``piece_ms``) are in the part that their recording is in, but for
    the sets without official split: those are split by time within each recording, by
    :func:`trevsnn.data.splitting.time_split`. With ``task="direction"`` both versions of an item are in the item's part.

    Args:
        config: data.* of the run.
        split: the part.
        frames: T.

    Raises:
        RunError: files are missing or do not belong to the set, or the cache cannot be written.
        UnreadableError: a recording is damaged.
        UsageError: the library that reads the recordings is not installed.
    """
    root = data_root(config)
    sensor = SENSORS.get(config.name) or tuple(config.sensor)
    listing = list_recordings(root, split, config.piece_ms, config.workers)
    if config.task == "direction":
        listing = both_directions(listing)
    return EventFrames(listing, frames, sensor, config)  # type: ignore[arg-type]


def list_recordings(root: Path, split: Split, piece_ms: float | None = None, workers: int = 0) -> FileList:
    """The recordings of one part of a folder, or with ``piece_ms`` their pieces, split as :func:`load_events` says.

    Raises:
        RunError, UnreadableError, UsageError: as :func:`trevsnn.data.listing.list_files`,
            :func:`trevsnn.data.splitting.ordered_split`, :func:`trevsnn.data.splitting.time_split` and
            :func:`trevsnn.data.events.excerpts.cut_listing`.
    """

    def cut(listing: FileList) -> FileList:
        return listing if piece_ms is None else cut_listing(listing, piece_ms, workers)

    if (root / "trials_to_train.txt").is_file():
        return cut(_gestures(root, split))
    folders = find_parts(root)
    if {"train", "test"} <= folders.keys():
        return cut(part_of(folders, split, _list))
    whole = cut(_list(root, list_classes(root)))
    by_time = piece_ms is not None
    parts = time_split([file_of(name) for name in whole.files]) if by_time else ordered_split(whole.labels_N)
    return whole.select(parts[split])


def _list(folder: Path, classes: Sequence[str]) -> FileList:
    files, labels = list_files(folder, list(READERS), classes)
    order = sorted(range(len(files)), key=lambda i: (labels[i], len(files[i]), files[i]))  # natural: 2 before 10
    return FileList(folder, [files[i] for i in order], [labels[i] for i in order], classes)


def _gestures(root: Path, split: Split) -> FileList:
    """Trials named FILE.aedat@START-END (microseconds), one for each line of the recordings' _labels.csv."""
    listed = "test" if split == "test" else "train"
    recordings = (root / f"trials_to_{listed}.txt").read_text().split()
    if listed == "train":
        people = sorted({name.partition("_")[0] for name in recordings})
        held_out = people[-max(1, len(people) // 10) :]
        recordings = [n for n in recordings if (n.partition("_")[0] in held_out) == (split == "val")]
    files, labels = [], []
    for name in recordings:
        table = root / f"{Path(name).stem}_labels.csv"
        try:
            with table.open(newline="") as lines:
                for row in csv.DictReader(lines):
                    files.append(f"{name}@{int(row['startTime_usec'])}-{int(row['endTime_usec'])}")
                    labels.append(int(row["class"]) - 1)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{table} is missing or damaged ({error}): fetch DVS128 Gesture again.") from error
        if not 0 <= min(labels) <= max(labels) < len(GESTURES):
            raise RunError(f"{table} names a class outside 1..{len(GESTURES)}: fetch DVS128 Gesture again.")
    return FileList(root, files, labels, GESTURES)
