"""Reading every file of a data set once: counts, and which files are unreadable or odd."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track
from rich.table import Table

from trevsnn.data.config import DataConfig
from trevsnn.data.convention import Convention
from trevsnn.data.events.look import look_at_file
from trevsnn.data.events.recordings import READERS, UNSTATED
from trevsnn.data.events.sets import TRIALS, list_recordings, recording_splits
from trevsnn.data.events.table import has_table, read_table
from trevsnn.data.listing import SPLITS, find_parts, list_classes
from trevsnn.data.pictures.file import PICTURE_ENDINGS
from trevsnn.data.pictures.folders import folder_splits, load_folder
from trevsnn.data.pictures.layout import own_parts, refuse_other_names, several_classes
from trevsnn.data.pictures.oddities import oddities
from trevsnn.data.walk import Walk, is_hidden, leads_back, walk
from trevsnn.errors import RunError, UnreadableError, listed
from trevsnn.terminal import Terminal


class Told(NamedTuple):
    """What is said of recordings beside their files: width and height of the sensor, and what the numbers of plain tables mean."""

    sensor: tuple[int, int] | None = None
    convention: Convention = UNSTATED


NOTHING_TOLD = Told()
SHOWN = 20  # file names printed of each kind, if not all; the JSON has all


def check_folder(root: Path, workers: int, told: Told = NOTHING_TOLD) -> dict[str, Any]:
    """Read every picture or recording below ``root``, PART/CLASS/file or CLASS/file, but for hidden ones.

    Args:
        root: the data set's folder.
        workers: reading processes, at least one.
        told: of recordings.

    Returns:
        ``root``; ``parts``: for each part the number of ``classes`` and ``files`` and the files of the
        ``smallest_class`` and ``largest_class``; ``unreadable``: by file, what is wrong; ``odd``: by kind
        (:func:`trevsnn.data.pictures.oddities.oddities`, of recordings :func:`_oddities`, neither of both, hidden, links, strange
        names), the files; ``held_out``: pictures that training holds out of the only part, None where there are others;
        ``problem``: why a training would not begin, or None.

    Raises:
        RunError: there is no such folder, it holds no class folders, or shards, or a part has another name.
        UsageError: the library that reads the recordings is not installed.
    """
    if not root.is_dir():
        raise RunError(f"{root} is no folder: give the one that holds train, val or test, or the class folders.")
    if any(root.glob("*.tar")) or any(root.glob("*/*.tar")):
        raise RunError(
            f"{root} holds shards (.tar), and this checks folders of pictures or recordings: shards are checked when a run "
            "begins, and their pictures as they are read."
        )
    refuse_other_names(root)
    folders = find_parts(root) or {root.name: root}
    parts: dict[str, Any] = {}
    files: list[Path] = []
    odd: dict[str, list[str]] = {}
    if has_table(root):
        parts, files = _by_table(root)
        folders = {}
    elif root not in folders.values():
        _add(odd, _beside(root, folders.values()))
    for name in sorted(folders, key=lambda n: SPLITS.index(n) if n in SPLITS else 0):
        folder = folders[name]
        by_class = {c: walk(folder / c) for c in list_classes(folder)}
        parts[name] = _counted([len(own.files) for own in by_class.values()])
        files += sorted(f for own in by_class.values() for f in own.files)
        for found in (_beside(folder, [folder / c for c in by_class]), *by_class.values()):
            _add(odd, found)
    with ProcessPoolExecutor(max(1, workers)) as pool:
        results = list(
            track(
                pool.map(partial(look_at, told=told), files, chunksize=32),
                "reading",
                len(files),
                console=Terminal(stderr=True),
            )
        )
    for file, (kinds, _) in zip(files, results, strict=True):
        for kind in kinds:
            odd.setdefault(kind, []).append(str(file))
    unreadable = {str(f): message for f, (_, message) in zip(files, results, strict=True) if message}
    held_out, problem = _as_training(root, files)
    return {
        "root": str(root), "parts": parts, "unreadable": unreadable, "odd": odd, "held_out": held_out, "problem": problem,
    }  # fmt: skip


def _beside(folder: Path, taken: Iterable[Path]) -> Walk:
    """What is worth knowing of the folders in a folder, of which some are ``taken``, as parts or classes."""
    inside = sorted(p for p in folder.iterdir() if p.is_dir())
    return Walk(
        files=list(taken),
        hidden=[p for p in inside if is_hidden(p.name)],
        links=[p for p in taken if p.is_symlink()],
        loops=[p for p in inside if leads_back(p)],
    )


def _add(odd: dict[str, list[str]], found: Walk) -> None:
    """Add what a walk has found to the oddities."""
    own = {
        "hidden": [p for p in found.hidden if p.name.startswith(".")],
        "left behind by a system": [p for p in found.hidden if not p.name.startswith(".")],
        "links to folders, which are followed": found.links,
        "links back to a folder that they lie in": found.loops,
        "folders that are taken already under another name": found.again,
        "names that are no UTF-8": [p for p in found.files if not _is_utf8(p.name)],
    }
    for kind, paths in own.items():
        if paths:
            odd.setdefault(kind, []).extend(map(str, paths))


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _counted(sizes: Sequence[int]) -> dict[str, int]:
    """A part by the numbers of files of its classes."""
    return {
        "classes": len(sizes), "files": sum(sizes), "smallest_class": min(sizes), "largest_class": max(sizes),
    }  # fmt: skip


def _by_table(root: Path) -> tuple[dict[str, Any], list[Path]]:
    """The parts and files of a folder of recordings with a labels.csv."""
    parts, files = {}, []
    for part, listing in read_table(root, READERS).items():
        parts[part or root.name] = _counted(np.bincount(listing.labels_N, minlength=len(listing.classes)).tolist())
        files += [root / file for file in listing.files]
    return parts, files


def _as_training(root: Path, files: list[Path]) -> tuple[int | None, str | None]:
    """How many pictures training holds out where there is no other part, and why it would not begin, with every part that it
    reads."""
    endings = [f.suffix.lower() for f in files]
    recordings = sum(e in READERS for e in endings)
    pictures = sum(e in PICTURE_ENDINGS for e in endings)
    config = DataConfig(name="folder" if pictures > recordings else "recordings", root=str(root))
    try:
        if pictures <= recordings:
            if recordings and not (root / TRIALS).is_file():
                for split in recording_splits(config):
                    list_recordings(root, split)
            return None, None
        parts = own_parts(root)
        several_classes(parts.get("train", root))
        sizes = {split: len(load_folder(config, split)) for split in folder_splits(config)}
    except RunError as error:
        return None, str(error)
    return (sizes["val"] if len(parts) < 2 else None), None


def look_at(file: Path, told: Told = NOTHING_TOLD) -> tuple[list[str], str]:
    """The kinds of :func:`check_folder` that one file is of, and the message if it cannot be read, else none."""
    suffix = file.suffix.lower()
    nowhere = ["links that lead nowhere"] if file.is_symlink() and not file.exists() else []
    try:
        if suffix in READERS:
            return [*nowhere, *_oddities(look_at_file(file, told.sensor, told.convention)[1])], ""
        if suffix not in PICTURE_ENDINGS:
            return [*nowhere, "neither picture nor recording"], ""
        return oddities(file), ""
    except UnreadableError as error:
        return nowhere, str(error)


def _oddities(figures: Mapping[str, Any]) -> list[str]:
    """What is worth knowing of a recording that can be read."""
    kinds = {
        "with events outside the sensor": figures["outside"]["events"],
        "with events out of order": figures["disordered"],
        "with hot pixels": figures["hot"]["count"],
    }
    return [kind for kind, count in kinds.items() if count]


def print_check(result: Mapping[str, Any], console: Terminal, most: int | None = SHOWN) -> None:
    """The parts as a table, then the files that need attention, of each kind up to ``most``, or all."""
    table = Table("part", "classes", "files", "smallest class", "largest class", title=result["root"])
    for name, part in result["parts"].items():
        table.add_row(name, *(str(part[key]) for key in ("classes", "files", "smallest_class", "largest_class")))
    console.print(table)
    unreadable = list(result["unreadable"].values())
    longest = max(len(unreadable), *map(len, result["odd"].values()), 0)
    most = longest if most is None else most
    lines = unreadable[:most] + [f"and {len(unreadable) - most} more"] * (len(unreadable) > most)
    lines += [f"{len(files)} {kind}: {listed(files, most)}" for kind, files in result["odd"].items()]
    if longest > most:
        lines.append("--all lists them all")
    if result["held_out"] is not None:
        lines.append(
            f"there is no val or test: training holds out {result['held_out']} pictures, by a hash of their names"
        )
    for line in [*lines, f"{len(unreadable)} unreadable files"]:
        console.print(line, soft_wrap=True)
