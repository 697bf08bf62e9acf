"""A look at a folder of pictures before anything is trained: how many there are, how large, and whether they are grey.

Nothing here loads PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from trevsnn.data.held_out import hashed_split
from trevsnn.data.listing import SPLITS, VALIDATION_SHARE, list_files, visible_folders
from trevsnn.data.pictures.file import PICTURE_ENDINGS, PictureFile
from trevsnn.data.pictures.layout import own_parts, several_classes
from trevsnn.data.pictures.levels import is_deep
from trevsnn.data.splitting import stratified_split
from trevsnn.data.walk import is_hidden, leads_back, walk, walk_all
from trevsnn.errors import RunError, UnreadableError

LOOKED_AT = 500  # pictures, evenly spread over the training part


@dataclass(frozen=True)
class Look:
    """What a folder of pictures holds.

    Attributes:
        root: the folder.
        parts: names of its parts; none where it holds the classes.
        classes: their names.
        pictures: training pictures, without those that are held out.
        sizes: height and width of those looked at, pixels.
        grey: whether all of them are grey in content.
        left_out: by reason, files and folders that are not taken.
    """

    root: Path
    parts: tuple[str, ...]
    classes: tuple[str, ...]
    pictures: int
    sizes: tuple[tuple[int, int], ...]
    grey: bool
    left_out: dict[str, list[Path]]

    @property
    def height(self) -> float:
        """The median height."""
        return median(height for height, _ in self.sizes)

    @property
    def width(self) -> float:
        """The median width."""
        return median(width for _, width in self.sizes)


def look_at(root: Path, *, skip: bool = False, exif_orientation: bool = True) -> Look:
    """Look at a folder of one's own pictures: at all its names, and at up to ``LOOKED_AT`` training pictures.

    Args:
        root: the folder.
        skip: pass over pictures that cannot be read, as training does with ``data.on_unreadable: skip``.
        exif_orientation: as ``data.exif_orientation``.

    Raises:
        RunError: there is no such folder, it is laid out otherwise, or it has one class alone or an empty one.
        UnreadableError: a picture that was looked at cannot be read; with ``skip``, none of them can.
    """
    if not root.is_dir():
        raise RunError(f"{root} is no folder: set data.root to the folder that holds your pictures.")
    parts = own_parts(root)
    folder = parts.get("train", root)
    classes = several_classes(folder)
    files, labels = list_files(folder, PICTURE_ENDINGS, classes)
    if len(parts) < 2:
        train, _ = hashed_split(files, np.asarray(labels), classes)
        files = [files[i] for i in train]
    elif "val" not in parts:
        train, _ = stratified_split(np.asarray(labels), VALIDATION_SHARE)
        files = [files[i] for i in np.sort(train)]
    count = min(LOOKED_AT, len(files))
    chosen = [folder / files[number * len(files) // count] for number in range(count)]
    sizes, grey = _look_into(chosen, skip=skip, exif_orientation=exif_orientation)
    return Look(
        root,
        tuple(name for name in SPLITS if name in parts),
        classes,
        len(files),
        tuple(sizes),
        grey,
        _left_out(folder, classes) | _beside(root, parts),
    )


def _look_into(files: Sequence[Path], *, skip: bool, exif_orientation: bool) -> tuple[list[tuple[int, int]], bool]:
    """Heights and widths, by the headers, and whether all pictures are grey; none is decoded after the first in colour."""
    sizes, grey = [], True
    for path in files:
        try:
            picture = PictureFile.of(path, exif_orientation=exif_orientation)
            grey = grey and _is_grey(picture)
        except UnreadableError:
            if not skip:
                raise
            continue
        sizes.append((picture.size[1], picture.size[0]))
    if not sizes:
        raise UnreadableError(
            f"none of the pictures that were looked at can be read, such as {files[0]}: replace them."
        )
    return sizes, grey


def _is_grey(picture: PictureFile) -> bool:
    if picture.header.mode in ("1", "L", "LA") or is_deep(picture.header):
        return True
    red, green, blue = picture.decode().split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def _left_out(folder: Path, classes: Sequence[str]) -> dict[str, list[Path]]:
    """What of the training part is not taken: files that are no pictures, what is hidden, links back, loose pictures."""
    found = walk_all(folder / name for name in classes)
    outside = sorted(folder.iterdir())
    reasons = {
        "hidden, or left behind by a system, by their names": [
            *found.hidden, *(p for p in outside if is_hidden(p.name) and p.is_dir())
        ],
        "no pictures by the endings of their names": [p for p in found.files if p.suffix.lower() not in PICTURE_ENDINGS],
        "links back to a folder that they lie in": [*found.loops, *(p for p in outside if leads_back(p))],
        "folders that are taken already under another name": found.again,
        "pictures outside the class folders": [
            p for p in outside if p.suffix.lower() in PICTURE_ENDINGS and not p.is_dir() and not is_hidden(p.name)
        ],
    }  # fmt: skip
    return {reason: paths for reason, paths in reasons.items() if paths}


def _beside(root: Path, parts: Mapping[str, Path]) -> dict[str, list[Path]]:
    """Folders beside the parts that are none, but hold pictures: nothing of them is taken."""
    if not parts:
        return {}
    others = [folder for folder in visible_folders(root) if folder not in parts.values()]
    beside = [f for f in others if any(p.suffix.lower() in PICTURE_ENDINGS for p in walk(f).files)]
    return {f"folders beside {' and '.join(parts)}, which are no parts": beside} if beside else {}
