"""Looking at every file of a data set: what is there, what cannot be read, what is odd."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torchvision.datasets.folder import IMG_EXTENSIONS

from trevsnn.data.events.recordings import READERS, read_recording
from trevsnn.data.part import UnreadableError
from trevsnn.data.pictures.folders import SPLITS, find_parts, list_classes, read_rgb
from trevsnn.errors import RunError

COLOURS = {
    "1": "grey",
    "L": "grey",
    "LA": "grey",
    "I;16": "grey",
    "CMYK": "CMYK",
    "P": "palette",
    "RGBA": "transparency",
}
SHOWN = 20  # names of each kind in the table; JSON has all


def check_folder(root: Path, workers: int) -> dict[str, Any]:
    """Read every picture or recording below ``root``, PART/CLASS/file or CLASS/file.

    Returns:
        ``parts``: by part, ``classes``, ``files`` and the smallest and largest class; ``unreadable``: files and why;
        ``odd``: by kind (grey, CMYK, palette, transparency, another format than its name says, neither picture nor
        recording), files.

    Raises:
        RunError: there is no such folder, or it holds no class folders.
    """
    if not root.is_dir():
        raise RunError(f"{root} is no folder: give the one that holds train, val or test, or the class folders.")
    found = find_parts(root) or {root.name: root}
    parts: dict[str, Any] = {}
    files: list[Path] = []
    for name in sorted(found, key=lambda n: SPLITS.index(n) if n in SPLITS else 0):
        by_class = {c: [f for f in (found[name] / c).rglob("*") if f.is_file()] for c in list_classes(found[name])}
        counts = Counter({c: len(own) for c, own in by_class.items()})
        parts[name] = {
            "classes": len(counts), "files": counts.total(), "smallest_class": min(counts.values()),
            "largest_class": max(counts.values()),
        }  # fmt: skip
        files += sorted(f for own in by_class.values() for f in own)
    with ProcessPoolExecutor(max(1, workers)) as pool:
        results = list(
            track(pool.map(look_at, files, chunksize=32), "reading", len(files), console=Console(stderr=True))
        )
    unreadable = {str(f): message for f, (kind, message) in zip(files, results, strict=True) if kind == "unreadable"}
    odd: dict[str, list[str]] = {}
    for file, (kind, _) in zip(files, results, strict=True):
        if kind not in ("", "unreadable"):
            odd.setdefault(kind, []).append(str(file))
    return {"root": str(root), "parts": parts, "unreadable": unreadable, "odd": odd}


def look_at(file: Path) -> tuple[str, str]:
    """The kind of oddness of one file, "" for none, and what there is to say."""
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


def print_check(result: dict[str, Any], console: Console) -> None:
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
