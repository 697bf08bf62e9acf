"""How a picture is to be turned before it is looked at, by the EXIF data in its file."""

from __future__ import annotations

import warnings

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

Turn = Image.Transpose

#: By the EXIF orientation: what is done to the stored picture, as by :func:`PIL.ImageOps.exif_transpose`.
TURNS: dict[int, Turn] = {
    2: Turn.FLIP_LEFT_RIGHT, 3: Turn.ROTATE_180, 4: Turn.FLIP_TOP_BOTTOM, 5: Turn.TRANSPOSE, 6: Turn.ROTATE_270,
    7: Turn.TRANSVERSE, 8: Turn.ROTATE_90,
}  # fmt: skip
SIDEWAYS = (5, 6, 7, 8)  # width and height change places
FROM_THE_RIGHT = (2, 3, 6, 7)  # the turned picture's columns begin at an end of what is stored
FROM_BELOW = (3, 4, 7, 8)  # and its rows
UPRIGHT, DAMAGED = 1, 0
_PNG_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


def orientation_of(picture: Image.Image, content: bytes) -> int:
    """A picture's EXIF orientation, 1 to 8: ``UPRIGHT`` where there is none, and ``DAMAGED`` (0) where EXIF cannot be read.

    Pillow turns TIFFs itself, by what is not EXIF but a part of the format: they are upright.

    Args:
        picture: as Pillow has opened it.
        content: of its file.

    Raises:
        OSError, ValueError, SyntaxError: it is a damaged PNG.
    """
    if isinstance(picture, TiffImageFile):
        return UPRIGHT
    if isinstance(picture, PngImageFile):
        if not any(mark in content for mark in _PNG_MARKS):
            return UPRIGHT  # Pillow would decode the whole picture, since EXIF may stand after it
        picture.load()  # as Pillow would below, where an error would be taken for one of EXIF, and the rest for a picture
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            own = Image.Exif()
            own.load(picture.info.get("exif", b""))  # Pillow forgets that it could not, if it has tried before
            # Or else as ImageMagick writes it to a PNG, or of XMP.
            value = own.get(ExifTags.Base.Orientation) or picture.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
        except MemoryError:
            raise
        except Exception:  # of whatever class: it is a stranger's data
            return DAMAGED
    if isinstance(value, int) and value in TURNS:
        return value
    return DAMAGED if told else UPRIGHT


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of a picture when it is turned."""
    return (size[1], size[0]) if orientation in SIDEWAYS else size


def turned(picture: Image.Image, orientation: int) -> Image.Image:
    """A picture, decoded, as it is to be looked at."""
    return picture.transpose(TURNS[orientation]) if orientation in TURNS else picture
