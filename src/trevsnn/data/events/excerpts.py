"""Excerpts of recordings, the items of a set: a span of time, and the direction of time."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from trevsnn.data.convention import Convention
from trevsnn.data.events.recordings import UNSTATED, Events, read_recording
from trevsnn.data.part import FileList
from trevsnn.errors import RunError, UnreadableError

DIRECTIONS = ("forward", "reversed")
Result = TypeVar("Result")
_NAME = re.compile(r"(.*?)(?:@(-?\d+)-(-?\d+))?( reversed)?", re.DOTALL)


def read_excerpt(root: Path, name: str, convention: Convention = UNSTATED) -> Events:
    """The events of an item of a set, in the order of time.

    Args:
        root: the folder that the item's file is in.
        name: ``FILE``; or ``FILE@START-END``, its events from START up to, but not at, END, in microseconds of the file's own
            clock; either with `` reversed`` behind, for :func:`reverse` of it.
        convention: of plain tables.

    Raises:
        UnreadableError: there are no such events, or as :func:`trevsnn.data.events.recordings.read_recording`.
        RunError, UsageError: as that.
    """
    file, span, backwards = _parse(name)
    events = _whole_recording(root / file, convention, _stamp(root / file))
    if span is not None:
        events = events[slice(*np.searchsorted(events["t"], span))]
    if not len(events):
        raise UnreadableError(f"{root / name} holds no events: fetch it again, or remove it.")
    return reverse(events) if backwards else events


def file_of(name: str) -> str:
    """The file that an item of a set is an excerpt of."""
    return _parse(name)[0]


def reverse(events: Events) -> Events:
    """A recording backwards in time: ``t -> t_first + t_last - t``, in the order of time, with place and polarity kept.

    So a single frame of it holds the same counts, and nothing but the order of events tells the two apart. (A camera that
    saw the scene backwards would give the other polarity, which a single frame would show.)
    """
    backwards = events[::-1].copy()
    backwards["t"] = events["t"][0] + events["t"][-1] - backwards["t"]
    return backwards


def both_directions(listing: FileList) -> FileList:
    """Every recording of a part twice, one after the other: as it is, of class "forward", and backwards, "reversed"."""
    files = [name for file in listing.files for name in (file, f"{file} reversed")]
    return FileList(listing.root, files, [0, 1] * len(listing), DIRECTIONS)


def cut_listing(
    listing: FileList, milliseconds: float, workers: int, convention: Convention = UNSTATED, *, skip: bool = False
) -> FileList:
    """Every recording of a part as its pieces, in the order of time: ``[START + k P, START + (k + 1) P)``.

    START is the recording's first event, or the beginning of a trial. What is left at the end, shorter than a piece, and
    pieces without an event are left out.

    Args:
        listing: the recordings, or trials ``FILE@START-END``.
        milliseconds: P.
        workers: processes that read the recordings; 0 for this one.
        convention: of plain tables.
        skip: leave out recordings that cannot be read or have no piece, with one warning.

    Raises:
        RunError: a recording has no piece; with ``skip``, none has one.
        UnreadableError, UsageError: as :func:`read_excerpt`.
    """
    cut = partial(_pieces, listing.root, round(milliseconds * 1000), convention, skip)
    files, labels, problems = [], [], list[str]()
    for label, own in zip(listing.labels_N.tolist(), each(cut, listing.files, workers), strict=True):
        if isinstance(own, str):
            problems.append(own)
        else:
            files += own
            labels += [label] * len(own)
    if problems:
        if not files:
            raise RunError(f"no recording has a piece that can be read: {problems[0]}")
        warnings.warn(
            f"left out {len(problems)} of {len(listing)} recordings, the first because {problems[0]}", stacklevel=2
        )
    return FileList(listing.root, files, labels, listing.classes)


def first_piece(events: Events, milliseconds: float) -> Events:
    """The first piece of a recording, as :func:`cut_listing` cuts it.

    Raises:
        ValueError: the recording is shorter than a piece.
    """
    length, span = round(milliseconds * 1000), int(events["t"][-1] - events["t"][0]) + 1
    if span < length:
        raise ValueError(f"it lasts {span / 1000:g} ms, shorter than a piece of {milliseconds:g} ms (data.piece_ms)")
    return events[: np.searchsorted(events["t"], events["t"][0] + length)]


def each(function: Callable[[str], Result], names: Sequence[str], workers: int) -> Iterator[Result]:
    """What a function gives for every item by its name, in order, computed in so many processes; 0 for this one."""
    if workers == 0:
        yield from map(function, names)
    else:
        with ProcessPoolExecutor(workers) as pool:
            yield from pool.map(function, names, chunksize=16)


def _pieces(root: Path, length: int, convention: Convention, skip: bool, name: str) -> list[str] | str:
    """The names of a recording's pieces; with ``skip``, what is wrong with it instead."""
    try:
        return _pieces_or_error(root, length, convention, name)
    except RunError as error:
        if not skip:
            raise
        return str(error)


def _pieces_or_error(root: Path, length: int, convention: Convention, name: str) -> list[str]:
    file, span, _ = _parse(name)
    t = read_excerpt(root, name, convention)["t"]
    start, end = (int(t[0]), int(t[-1]) + 1) if span is None else span
    number, count = (t - start) // length, (end - start) // length
    held = np.unique(number[number < count]).tolist()
    if not held:
        raise RunError(
            f"{root / name} lasts {(end - start) / 1000:g} ms and has no piece of {length / 1000:g} ms with an event: lower "
            "data.piece_ms, or remove the recording."
        )
    return [f"{file}@{start + k * length}-{start + (k + 1) * length}" for k in held]


def _parse(name: str) -> tuple[str, tuple[int, int] | None, bool]:
    parts = _NAME.fullmatch(name)
    assert parts is not None  # it matches any name
    span = None if parts[2] is None else (int(parts[2]), int(parts[3]))
    return parts[1], span, parts[4] is not None


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0  # reading it says what is wrong


@lru_cache(maxsize=1)  # excerpts of one recording follow each other
def _whole_recording(path: Path, convention: Convention, stamp: int) -> Events:
    return read_recording(path, convention)
