"""What is worth knowing of a picture file: what in it is not as in most, though it can be read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from trevsnn.data.pictures.file import PictureFile
from trevsnn.data.pictures.levels import is_deep
from trevsnn.data.pictures.orientation import DAMAGED, TURNS
from trevsnn.errors import UnreadableError

#: By the ending of a file's name, the format that it says, as Pillow names it.
FORMATS_BY_ENDING = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".ppm": "PPM", ".pgm": "PPM", ".bmp": "BMP", ".tif": "TIFF",
    ".tiff": "TIFF", ".webp": "WEBP",
}  # fmt: skip
MANY = "animated or of many pages: the first is taken"


def oddities(path: Path) -> list[str]:
    """The kinds of oddity of a picture, which is read as a whole.

    Raises:
        UnreadableError: it cannot be read.
    """
    file = PictureFile.of(path)
    found = [*_of_mode(file), *_of_file(file, path.suffix.lower())]
    content = file.content
    file.decode()
    with suppress(UnreadableError):  # of frames that are not taken
        if PictureFile(content, str(path)).frames() > 1:
            found.append(MANY)
    return found


def _of_mode(file: PictureFile) -> list[str]:
    mode, found = file.header.mode, []
    if mode in ("1", "L", "LA", "La") or is_deep(file.header):
        found.append("grey")
    if mode in ("P", "PA"):
        found.append("palette")
    if mode in ("CMYK", "YCbCr", "LAB"):
        found.append(mode)
    if file.header.has_transparency_data:
        found.append("transparency")
    if mode == "F":
        found.append("levels in floats")
    elif file.bits > 8:
        taken = "" if is_deep(file.header) else ", of which 8 are taken"
        found.append(f"{file.bits} bits a channel{taken}")
    return found


def _of_file(file: PictureFile, ending: str) -> list[str]:
    found = []
    kind = "JPEG" if file.is_jpeg else file.header.format
    if kind != FORMATS_BY_ENDING[ending]:
        found.append(f"{kind} named {ending}")
    if file.orientation in TURNS:
        found.append("turned by EXIF")
    if file.orientation == DAMAGED:
        found.append("EXIF that cannot be read, and is ignored")
    return found
