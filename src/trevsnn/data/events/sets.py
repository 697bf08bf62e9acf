"""Event-camera data sets and their parts: DVS128 Gesture, CIFAR10-DVS, N-MNIST, N-Caltech101, a user's recordings."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from trevsnn.data.config import DataConfig, Split
from trevsnn.data.convention import Convention
from trevsnn.data.events.cache import EventFrames
from trevsnn.data.events.excerpts import both_directions, cut_listing, file_of
from trevsnn.data.events.recordings import LONGEST_US, READERS, UNSTATED
from trevsnn.data.events.table import TABLE, has_table, natural, read_table, table_parts
from trevsnn.data.listing import (
    cut_validation,
    data_root,
    find_parts,
    holds_a_set,
    list_files,
    part_of,
    visible_folders,
)
from trevsnn.data.part import FileList
from trevsnn.data.splitting import ordered_split, time_split
from trevsnn.errors import RunError
from trevsnn.files import read_file

TRIALS = "trials_to_train.txt"  # a file of the published DVS128 Gesture
MOST_BYTES = 2**20  # of the files that name recordings, of which there are 122
GESTURES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter clockwise",
    "left arm clockwise", "left arm counter clockwise", "arm roll", "air drums", "air guitar", "other gestures",
)  # fmt: skip


def recording_splits(config: DataConfig) -> list[Split]:
    """The parts of a set of recordings: train, val (cut from train where it is not given), and test, but for a set whose own parts
    are train and val alone.

    Raises:
        RunError: there is no such folder, or its labels.csv is damaged.
    """
    root = data_root(config)
    given = table_parts(root) if has_table(root) else find_parts(root).keys()
    return ["train", "val"] if {"train", "val"} == set(given) else ["train", "val", "test"]


def classes_of(root: Path) -> tuple[str, ...]:
    """The classes of a set, by the names of its files and folders and its labels.csv. No recording is opened.

    Raises:
        RunError: there are none; or the set lies in a folder of the root.
    """
    if (root / TRIALS).is_file():
        return GESTURES
    if has_table(root):
        return tuple(next(iter(read_table(root, READERS).values())).classes)
    return _classes(find_parts(root).get("train", root))


def load_events(config: DataConfig, split: Split, frames: int) -> EventFrames:
    """Read one part of an event data set, each recording as T frames.

    Folders train/CLASS and test/CLASS (N-MNIST has them) are used as they are; without val/CLASS, validation is a
    stratified tenth of train. With train/CLASS and val/CLASS alone there is no test. Sets that are only CLASS folders
    (CIFAR10-DVS, N-Caltech101) have no official split: of each class, in the natural order of file names, the last tenth is
    for test and the tenth before for validation. A folder with a labels.csv is read by it
    (:func:`trevsnn.data.events.table.read_table`). DVS128 Gesture is split by person, by its own trials_to_train.txt and
    trials_to_test.txt; the last tenth of the training people is for validation. Pieces of recordings (``piece_ms``) are in the
    part that their recording is in, but for the sets without official split: those are split by time within each recording, by
    :func:`trevsnn.data.splitting.time_split`. With ``task="direction"`` both versions of an item are in the item's part.

    Args:
        config: data.* of the run.
        split: the part, of :func:`recording_splits`.
        frames: T.

    Raises:
        RunError: files are missing or do not belong to the set, or the cache cannot be written.
        UnreadableError: a recording is damaged.
        UsageError: the library that reads the recordings is not installed.
    """
    skip = config.on_unreadable == "skip"
    root, piece_ms, convention = data_root(config), config.piece_ms, config.convention
    listing = list_recordings(root, split, piece_ms, config.workers, convention, skip=skip)
    if config.task == "direction":
        listing = both_directions(listing)
    return EventFrames(listing, frames, config)


def list_recordings(
    root: Path,
    split: Split,
    piece_ms: float | None = None,
    workers: int = 0,
    convention: Convention = UNSTATED,
    *,
    skip: bool = False,
) -> FileList:
    """The recordings of one part of a folder, or with ``piece_ms`` their pieces, split as :func:`load_events` says.

    Args:
        root: the folder.
        split: the part.
        piece_ms: length of a piece; None for whole recordings, of which none is opened then.
        workers: processes that read the recordings where they are cut.
        convention: of plain tables.
        skip: leave out recordings that have no piece.

    Raises:
        RunError, UnreadableError, UsageError: as :func:`trevsnn.data.listing.list_files`,
            :func:`trevsnn.data.events.table.read_table`, :func:`trevsnn.data.splitting.ordered_split`,
            :func:`trevsnn.data.splitting.time_split` and :func:`trevsnn.data.events.excerpts.cut_listing`.
    """

    def cut(listing: FileList) -> FileList:
        if piece_ms is None:
            return listing
        return cut_listing(listing, piece_ms, workers, convention, skip=skip)

    if (root / TRIALS).is_file():
        return cut(_gestures(root, split))
    if has_table(root):
        listed = read_table(root, READERS)
        if set(listed) != {None}:
            return cut(_part_of_table(listed, split))
        whole = cut(listed[None])
    else:
        folders = find_parts(root)
        if folders and "train" not in folders:
            raise RunError(f"{root} holds {' and '.join(folders)}, but no train: put the recordings to train on there.")
        if len(folders) > 1:
            if split not in folders and split != "val":
                raise RunError(f"{root} has no {split} folder: it holds {' and '.join(folders)}.")
            return cut(part_of(folders, split, _list))
        together = folders.get("train", root)
        whole = cut(_list(together, _classes(together)))
    by_time = piece_ms is not None
    parts = (
        time_split([file_of(name) for name in whole.files]) if by_time else ordered_split(whole.labels_N, whole.classes)
    )
    return whole.select(parts[split])


def _part_of_table(listed: Mapping[str | None, FileList], split: Split) -> FileList:
    """A part that the table names; where it names no val, a stratified tenth of train."""
    if split in listed and (split != "train" or "val" in listed):
        return listed[split]
    if split == "test":
        raise RunError(f"{listed['train'].root / TABLE} names no recording of part test.")
    return cut_validation(listed["train"], split)


def _classes(folder: Path) -> tuple[str, ...]:
    """The class folders in a folder. Raises RunError where there are none, or one alone that holds a set itself."""
    folders = visible_folders(folder)
    if not folders:
        raise RunError(
            f"{folder} holds no folders: it must hold one for each class, or a {TABLE} that names the class of each recording."
        )
    if len(folders) == 1 and holds_a_set(folders[0]):
        raise RunError(f"{folder} holds one folder alone, {folders[0].name}: did you mean {folders[0]}?")
    return tuple(inner.name for inner in folders)


def _list(folder: Path, classes: Sequence[str]) -> FileList:
    files, labels = list_files(folder, READERS, classes)
    order = sorted(range(len(files)), key=lambda i: (labels[i], *natural(files[i])))
    return FileList(folder, [files[i] for i in order], [labels[i] for i in order], classes)


def _gestures(root: Path, split: Split) -> FileList:
    """Trials named FILE.aedat@START-END (microseconds), one for each line of the recordings' _labels.csv."""
    listed = "test" if split == "test" else "train"
    trials = root / f"trials_to_{listed}.txt"
    try:
        recordings = read_file(trials, MOST_BYTES, links=True).decode().split()
    except (OSError, ValueError) as error:
        raise RunError(f"{trials} is missing or damaged ({error}): fetch DVS128 Gesture again.") from error
    if outside := [name for name in recordings if Path(name).name != name]:
        raise RunError(f"{trials} names {outside[0]}, which is not in its folder: fetch DVS128 Gesture again.")
    if listed == "train":
        people = sorted({name.partition("_")[0] for name in recordings})
        held_out = people[-max(1, len(people) // 10) :]
        recordings = [n for n in recordings if (n.partition("_")[0] in held_out) == (split == "val")]
    files, labels = [], []
    for name in recordings:
        table = root / f"{Path(name).stem}_labels.csv"
        try:
            lines = read_file(table, MOST_BYTES, links=True).decode().splitlines()
            for row in csv.DictReader(lines):
                start, end = int(row["startTime_usec"]), int(row["endTime_usec"])
                if not 0 <= start < end < LONGEST_US:
                    raise ValueError(f"it has a trial from {start} to {end} us")
                files.append(f"{name}@{start}-{end}")
                labels.append(int(row["class"]) - 1)
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
            raise RunError(f"{table} is missing or damaged ({error}): fetch DVS128 Gesture again.") from error
        if labels and not 0 <= min(labels) <= max(labels) < len(GESTURES):
            raise RunError(f"{table} names a class outside 1..{len(GESTURES)}: fetch DVS128 Gesture again.")
    if not files:
        raise RunError(f"{trials} names no recordings with trials of part {split}: fetch DVS128 Gesture again.")
    return FileList(root, files, labels, GESTURES)
