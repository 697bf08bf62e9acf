"""Reading every file of a data set once: counts, and which files are unreadable or odd."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track
from rich.table import Table

from trevsnn.data.events.recordings import READERS, read_recording
from trevsnn.data.held_out import hashed_split
from trevsnn.data.listing import SPLITS, find_parts, is_hidden, list_classes, list_files
from trevsnn.data.part import UnreadableError
from trevsnn.data.pictures.file import PICTURE_ENDINGS, read_rgb
from trevsnn.data.pictures.layout import refuse_other_names
from trevsnn.errors import RunError, listed
from trevsnn.terminal import Terminal

#: Pillow's modes other than RGB, as they are reported.
COLOURS = {
    "1": "grey",
    "L": "grey",
    "LA": "grey",
    "I;16": "grey",
    "CMYK": "CMYK",
    "P": "palette",
    "RGBA": "transparency",
}
SHOWN = 20  # file names printed of each kind; the JSON has all


def check_folder(root: Path, workers: int) -> dict[str, Any]:
    """Read every picture or recording below ``root``, PART/CLASS/file or CLASS/file, but for hidden ones.

    Args:
        root: the data set's folder.
        workers: reading processes, at least one.

    Returns:
        ``root``; ``parts``: for each part the number of ``classes`` and ``files`` and the files of the
        ``smallest_class`` and ``largest_class``; ``unreadable``: by file, what is wrong; ``odd``: by kind (grey, CMYK,
        palette, transparency, another format than its name says, neither picture nor recording, hidden), the files;
        ``held_out``: pictures that training holds out of the only part, None where there are others;
        ``problem``: why it cannot, or None.

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
    hidden: list[str] = []
    for name in sorted(folders, key=lambda n: SPLITS.index(n) if n in SPLITS else 0):
        folder = folders[name]
        by_class: dict[str, list[Path]] = {c: [] for c in list_classes(folder)}
        for name_of_class, own in by_class.items():
            for file in sorted((folder / name_of_class).rglob("*")):
                if is_hidden(file, folder):
                    hidden += [str(file)] * file.is_file()
                elif file.is_file() or (file.is_symlink() and not file.is_dir()):  # or a link that leads nowhere
                    own.append(file)
        counts = Counter({c: len(own) for c, own in by_class.items()})
        parts[name] = {
            "classes": len(counts), "files": counts.total(), "smallest_class": min(counts.values()),
            "largest_class": max(counts.values()),
        }  # fmt: skip
        files += sorted(f for own in by_class.values() for f in own)
    with ProcessPoolExecutor(max(1, workers)) as pool:
        results = list(
            track(pool.map(look_at, files, chunksize=32), "reading", len(files), console=Terminal(stderr=True))
        )
    unreadable = {str(f): message for f, (kind, message) in zip(files, results, strict=True) if kind == "unreadable"}
    odd: dict[str, list[str]] = {"hidden": hidden} if hidden else {}
    for file, (kind, _) in zip(files, results, strict=True):
        if kind not in ("", "unreadable"):
            odd.setdefault(kind, []).append(str(file))
    held_out, problem = _held_out(*folders.values()) if len(folders) == 1 else (None, None)
    return {
        "root": str(root), "parts": parts, "unreadable": unreadable, "odd": odd, "held_out": held_out, "problem": problem,
    }  # fmt: skip


def _held_out(folder: Path) -> tuple[int | None, str | None]:
    """The pictures that are held out of the only part, or why they cannot be. None and None of a folder without pictures."""
    if not any(f.suffix.lower() in PICTURE_ENDINGS for f in folder.rglob("*")):
        return None, None
    try:
        classes = list_classes(folder)
        files, labels = list_files(folder, PICTURE_ENDINGS, classes)
        return len(hashed_split(files, np.asarray(labels), classes)[1]), None
    except RunError as error:
        return None, str(error)


def look_at(file: Path) -> tuple[str, str]:
    """What is odd about one file ("unreadable", a kind of :func:`check_folder`, or "") and the message if unreadable."""
    suffix = file.suffix.lower()
    try:
        if suffix in READERS:
            read_recording(file)
            return "", ""
        if suffix not in PICTURE_ENDINGS:
            return "neither picture nor recording", ""
        read_rgb(file)
        with Image.open(file) as picture:
            if Image.registered_extensions().get(suffix) != picture.format:
                return f"{picture.format} named {suffix}", ""
            return COLOURS.get(picture.mode, ""), ""
    except UnreadableError as error:
        return "unreadable", str(error)


def print_check(result: dict[str, Any], console: Terminal) -> None:
    """The parts as a table, then the files that need attention."""
    table = Table("part", "classes", "files", "smallest class", "largest class", title=result["root"])
    for name, part in result["parts"].items():
        table.add_row(name, *(str(part[key]) for key in ("classes", "files", "smallest_class", "largest_class")))
    console.print(table)
    unreadable = list(result["unreadable"].values())
    lines = unreadable[:SHOWN] + [f"and {len(unreadable) - SHOWN} more"] * (len(unreadable) > SHOWN)
    lines += [f"{len(files)} {kind}: {listed(files, SHOWN)}" for kind, files in result["odd"].items()]
    if result["held_out"] is not None:
        lines.append(
            f"there is no val or test: training holds out {result['held_out']} pictures, by a hash of their names"
        )
    lines += [result["problem"]] * (result["problem"] is not None)
    for line in [*lines, f"{len(unreadable)} unreadable files"]:
        console.print(line, soft_wrap=True)
