"""Reading every file of a data set once: counts, and which files are unreadable or odd."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import track
from rich.table import Table
from torchvision.datasets.folder import IMG_EXTENSIONS

from trevsnn.data.events.recordings import READERS, read_recording
from trevsnn.data.listing import SPLITS, find_parts, list_classes
from trevsnn.data.part import UnreadableError
from trevsnn.data.pictures.file import read_rgb
from trevsnn.errors import RunError
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
    """Read every picture or recording below ``root``, PART/CLASS/file or CLASS/file.

    Args:
        root: the data set's folder.
        workers: reading processes, at least one.

    Returns:
        ``root``; ``parts``: for each part the number of ``classes`` and ``files`` and the files of the
        ``smallest_class`` and ``largest_class``; ``unreadable``: by file, what is wrong; ``odd``: by kind (grey, CMYK,
        palette, transparency, another format than its name says, neither picture nor recording), the files.

    Raises:
        RunError: there is no such folder, or it holds no class folders, or shards.
        UsageError: the library that reads the recordings is not installed.
    """
    if not root.is_dir():
        raise RunError(f"{root} is no folder: give the one that holds train, val or test, or the class folders.")
    if any(root.glob("*.tar")) or any(root.glob("*/*.tar")):
        raise RunError(
            f"{root} holds shards (.tar), and this checks folders of pictures or recordings: shards are checked when a run "
            "begins, and their pictures as they are read."
        )
    folders = find_parts(root) or {root.name: root}
    parts: dict[str, Any] = {}
    files: list[Path] = []
    for name in sorted(folders, key=lambda n: SPLITS.index(n) if n in SPLITS else 0):
        folder = folders[name]
        by_class = {c: [f for f in (folder / c).rglob("*") if f.is_file()] for c in list_classes(folder)}
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
    odd: dict[str, list[str]] = {}
    for file, (kind, _) in zip(files, results, strict=True):
        if kind not in ("", "unreadable"):
            odd.setdefault(kind, []).append(str(file))
    return {"root": str(root), "parts": parts, "unreadable": unreadable, "odd": odd}


def look_at(file: Path) -> tuple[str, str]:
    """What is odd about one file ("unreadable", a kind of :func:`check_folder`, or "") and the message if unreadable."""
    suffix = file.suffix.lower()
    try:
        if suffix in READERS:
            read_recording(file)
            return "", ""
        if suffix not in IMG_EXTENSIONS:
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
    for message in list(result["unreadable"].values())[:SHOWN]:
        console.print(message, highlight=False, soft_wrap=True)
    for kind, files in result["odd"].items():
        console.print(f"{len(files)} {kind}: {', '.join(files[:SHOWN])}", highlight=False, soft_wrap=True)
    console.print(f"{len(result['unreadable'])} unreadable files", highlight=False)
