"""What a folder holds: pictures, recordings or shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from trevsnn.data.events.recordings import READERS
from trevsnn.data.listing import visible_folders
from trevsnn.data.pictures.file import PICTURE_ENDINGS
from trevsnn.data.walk import is_hidden
from trevsnn.errors import RunError

Kind = Literal["folder", "recordings", "shards"]
LOOKED_AT = 1000  # files by whose names a folder's kind is told


def kind_of(root: Path) -> Kind:
    """What a folder holds, by the names of its files: "shards" (.tar), or else pictures ("folder") or "recordings", of which
    there are more among the first 1,000 of both; hidden ones do not count.

    Raises:
        RunError: there is no such folder, or it holds none of these.
    """
    if not root.is_dir():
        raise RunError(f"{root} is no folder: give the one that holds train, val or test, or the class folders.")
    if any(root.glob("*.tar")) or any(root.glob("*/*.tar")):
        return "shards"
    kinds = {**dict.fromkeys(READERS, "recordings"), **dict.fromkeys(PICTURE_ENDINGS, "folder")}
    named = (
        kinds.get(path.suffix.lower()) for path in _files(root) if not any(map(is_hidden, path.relative_to(root).parts))
    )
    counts = Counter(islice((kind for kind in named if kind), LOOKED_AT))
    if not counts:
        raise RunError(f"{root} holds no pictures, recordings or shards: files that end in {', '.join(kinds)} or .tar.")
    return "recordings" if counts["recordings"] > counts["folder"] else "folder"


def _files(root: Path) -> Iterator[Path]:
    """What lies in a folder; parts and classes may be links to folders."""
    yield from (path for path in root.iterdir() if path.is_file())
    for outer in visible_folders(root):
        yield from (path for path in outer.iterdir() if path.is_file())
        for inner in visible_folders(outer):
            yield from inner.rglob("*")
