"""What a data set of recordings holds, by part and class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from trevsnn.data.convention import Convention
from trevsnn.data.events.excerpts import each, file_of, read_excerpt
from trevsnn.data.events.look import Sensor, look_at_events, look_at_file
from trevsnn.data.events.recordings import READERS, Events
from trevsnn.data.events.sets import TRIALS, list_recordings
from trevsnn.data.events.table import has_table, read_table
from trevsnn.data.listing import SPLITS, find_parts, visible_folders
from trevsnn.data.part import FileList
from trevsnn.data.walk import is_hidden, walk
from trevsnn.errors import RunError, UnreadableError

Group = tuple[str, str]  # a part and a class


def find_recordings(root: Path) -> dict[Group, list[str]]:
    """The recordings below a folder, by part and class: PART/CLASS/file, CLASS/file, or files alone; by its labels.csv; of
    the published DVS128 Gesture its trials, FILE@START-END. What is not there is "".

    Returns:
        Names relative to ``root``, in the natural order. Groups without recordings are there, too.

    Raises:
        RunError: there are none, or as :func:`trevsnn.data.events.sets.list_recordings`.
    """
    groups: dict[Group, list[str]] = {}
    listings: dict[str, FileList] = {}
    if (root / TRIALS).is_file():
        listings = {split: list_recordings(root, split) for split in SPLITS}
    elif has_table(root):
        listings = {part or "": listing for part, listing in read_table(root, READERS).items()}
    for part, listing in listings.items():
        for name, label in zip(listing.files, listing.labels_N.tolist(), strict=True):
            groups.setdefault((part, listing.classes[label]), []).append(name)
    if listings:
        return groups
    parts = find_parts(root)
    for part, folder in ((part, parts[part]) for part in SPLITS if part in parts) if parts else [("", root)]:
        for own in visible_folders(folder):
            groups[part, own.name] = _recordings(root, walk(own).files)
        if loose := _recordings(root, (p for p in folder.iterdir() if not is_hidden(p.name))):
            groups[part, ""] = loose
    if not any(groups.values()):
        raise RunError(f"{root} holds no recordings: files that end in {', '.join(READERS)}.")
    return groups


def _recordings(root: Path, paths: Iterable[Path]) -> list[str]:
    found = (p for p in paths if p.suffix.lower() in READERS and p.is_file())
    return sorted((str(path.relative_to(root)) for path in found), key=lambda name: (len(name), name))


def look_at_item(root: Path, name: str, sensor: Sensor | None, convention: Convention) -> tuple[Events, dict[str, Any]]:
    """The events of one of :func:`find_recordings`, and their figures as :func:`trevsnn.data.events.look.look_at_file`.

    Raises:
        UnreadableError, RunError, UsageError: as that.
    """
    if file_of(name) == name:
        return look_at_file(root / name, sensor, convention)
    events = read_excerpt(root, name, convention)
    return events, {**look_at_events(events, sensor), "sensor_from": "option" if sensor else "events"}


def _figures(root: Path, sensor: Sensor | None, convention: Convention, name: str) -> dict[str, Any] | str:
    try:
        figures = look_at_item(root, name, sensor, convention)[1]
    except UnreadableError as error:
        return str(error)
    return {key: value for key, value in figures.items() if key != "windows"}


def look_at_recordings(
    root: Path, groups: dict[Group, list[str]], sensor: Sensor | None, workers: int, convention: Convention
) -> Iterator[tuple[Group, str, dict[str, Any] | str]]:
    """Of each recording its group, its name, and its figures or why it cannot be read.

    Args:
        root, groups: of :func:`find_recordings`.
        sensor: width and height in pixels; None for what the files state, or hold.
        workers: processes that read the recordings; 0 for this one.
        convention: of plain tables.
    """
    named = [(group, name) for group, names in groups.items() for name in names]
    looks = each(partial(_figures, root, sensor, convention), [name for _, name in named], workers)
    for (group, name), figures in zip(named, looks, strict=True):
        yield group, name, figures


def summarise(
    groups: Iterable[Group], looks: Iterable[tuple[Group, str, dict[str, Any] | str]]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """A row for each part and class, and the recordings that cannot be read.

    Returns:
        Rows with ``part`` and ``class``; ``recordings``, of which so many ``unreadable``; the medians ``events``,
        ``duration_us`` and ``rate`` in events a second, and ``brighter``, the share of all events, None where there are none;
        ``sensor``, the largest [width, height], and ``sensor_from``; ``outside``, events outside it; ``hot``, hot pixels of
        all recordings. And by name why a recording cannot be read.
    """
    by_group: dict[Group, list[dict[str, Any]]] = {group: [] for group in groups}
    unreadable: dict[str, str] = {}
    wrong = dict.fromkeys(by_group, 0)
    for group, name, figures in looks:
        if isinstance(figures, str):
            unreadable[name] = figures
            wrong[group] += 1
        else:
            by_group[group].append(figures)
    return [_row(group, own, wrong[group]) for group, own in by_group.items()], unreadable


def _row(group: Group, looks: list[dict[str, Any]], unreadable: int) -> dict[str, Any]:
    def middle(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return median(known) if known else None

    total = sum(look["events"] for look in looks)
    sensor = [max(look["sensor"][i] for look in looks) for i in (0, 1)] if looks else None
    return {
        "part": group[0], "class": group[1], "recordings": len(looks) + unreadable, "unreadable": unreadable,
        "events": middle(look["events"] for look in looks),
        "duration_us": middle(look["duration_us"] for look in looks),
        "rate": middle(look["mean_rate"] for look in looks),
        "brighter": sum(look["brighter"] for look in looks) / total if total else None,
        "sensor": sensor, "sensor_from": looks[0]["sensor_from"] if looks else None,
        "outside": sum(look["outside"]["events"] for look in looks), "hot": sum(look["hot"]["count"] for look in looks),
    }  # fmt: skip
