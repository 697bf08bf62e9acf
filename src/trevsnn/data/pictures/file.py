"""A picture's file: its header at first, its pixels when they are asked for."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from trevsnn.data.pictures.levels import as_grey, as_rgb, bits_of
from trevsnn.data.pictures.orientation import (
    FROM_BELOW,
    FROM_THE_RIGHT,
    UPRIGHT,
    orientation_of,
    turned,
    turned_size,
)
from trevsnn.data.pictures.quiet import quiet
from trevsnn.errors import UnreadableError
from trevsnn.files import read_file

#: Endings of files that are taken as pictures, those of torchvision's folders.
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
#: Pillow's names of the formats that are opened, whatever a file's name ends in. It knows others that start other programs.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
MOST_BYTES = 2**30  # of a file
REDUCTIONS = (8, 4, 2)  # by which libjpeg divides a picture's sides while it decodes, almost for nothing

quiet()


class PictureFile:
    """A picture file in memory, not yet decoded. Of an animation or a file of many pages it is the first.

    Args:
        content: its bytes.
        name: of the file, in messages.
        grey: whether to decode to one channel, as :func:`read_grey`.
        exif_orientation: whether to turn it as its EXIF data say.

    Attributes:
        header: the picture as Pillow has opened it, with its mode, and its size as it is stored.
        bits: of a sample in the file.
        orientation: by which it is turned, of EXIF: 1 to 8; 0 where EXIF cannot be read, which is the same as 1.
        size: width and height of the whole picture, turned, in pixels.

    Raises:
        UnreadableError: it is no picture, or has more pixels than Pillow's limit, 89,478,485.
    """

    def __init__(self, content: bytes, name: str, *, grey: bool = False, exif_orientation: bool = True) -> None:
        self.content, self.name, self.grey = content, name, grey
        with _naming(name):
            self.header = _opened(content)
            self.bits = bits_of(self.header, content)
            self.orientation = orientation_of(self.header, content) if exif_orientation else UPRIGHT
        self.size = turned_size(self.header.size, self.orientation)

    @classmethod
    def of(cls, path: Path, *, grey: bool = False, exif_orientation: bool = True) -> PictureFile:
        """A file's content.

        Raises:
            UnreadableError: also, it is missing, cannot be read, is no regular file, or has more than ``MOST_BYTES``.
        """
        with _naming(path):
            content = read_file(path, MOST_BYTES, links=True)
        return cls(content, str(path), grey=grey, exif_orientation=exif_orientation)

    @property
    def is_jpeg(self) -> bool:
        """Whether it is a JPEG, which can be decoded at a reduced scale."""
        return isinstance(self.header, JpegImageFile)

    @property
    def is_plain_jpeg(self) -> bool:
        """Whether it is a JPEG that every decoder reads alike: upright, grey or YCbCr, and not cut off before its end marker."""
        picture = self.header
        if not isinstance(picture, JpegImageFile) or picture.mode not in ("L", "RGB") or self.orientation > UPRIGHT:
            return False
        stored_as_rgb = picture.info.get("adobe_transform") == 0 or [part[0] for part in picture.layer] == [*b"RGB"]
        return not stored_as_rgb and self.content.endswith(b"\xff\xd9")

    def decode(self, reduction: int = 1) -> Image.Image:
        """The picture as RGB, or grey as :func:`read_grey` has it, be it CMYK, with a palette or with transparency. Call it once.

        Args:
            reduction: 1, or for a JPEG one of ``REDUCTIONS``: pixel (x, y) is about the mean of the square of so many
                pixels a side that begins at reduction * (x, y) - :meth:`margin`.

        Raises:
            UnreadableError: the file is truncated or damaged, or nothing says what is white in it.
        """
        with _naming(self.name):
            if self.header.format == "PNG":
                _opened(self.content).verify()  # checksums of the pixels, at which Pillow does not look as it decodes
            if reduction > 1:
                # The largest reduction that leaves this size, which is that by ``reduction`` without its partial pixels.
                width, height = self.header.size
                self.header.draft(None, (width // reduction, height // reduction))
            picture = (as_grey if self.grey else as_rgb)(self.header, self.bits)
            return turned(picture, self.orientation)

    def frames(self) -> int:
        """Pictures in the file, of which the first is taken. Where it is called, :meth:`decode` must not be.

        Raises:
            UnreadableError: those after the first are damaged.
        """
        with _naming(self.name):
            return getattr(self.header, "n_frames", 1)

    def margin(self, reduction: int) -> tuple[int, int]:
        """Pixels that the first column and the first row of a picture decoded at a reduction lack of ``reduction``.

        The last ones of what is stored may lack some. Turned, they may come first.
        """
        width, height = (-side % reduction for side in self.size)
        return width * (self.orientation in FROM_THE_RIGHT), height * (self.orientation in FROM_BELOW)


def read_rgb(path: Path, *, exif_orientation: bool = True) -> Image.Image:
    """A picture file as RGB, 8 bits a channel: docs/do/pictures.md has the rule for each mode.

    Args:
        path: of the file.
        exif_orientation: whether to turn it as its EXIF data say.

    Raises:
        UnreadableError: the file is missing, truncated, no picture, nothing says what is white in it, or it has more pixels than
            Pillow's limit.
    """
    return PictureFile.of(path, exif_orientation=exif_orientation).decode()


def read_grey(path: Path, *, exif_orientation: bool = True) -> Image.Image:
    """A picture file as one channel: mode L, 0 to 255; of 16 bits or floats with all its levels, mode F, 0 to 1.

    Colours become their luma (ITU-R 601-2), which of equal channels is their common value.

    Args, Raises: as :func:`read_rgb`.
    """
    return PictureFile.of(path, grey=True, exif_orientation=exif_orientation).decode()


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        if content.startswith((b"II*\0", b"MM\0*")):
            raise ValueError("Pillow does not read this kind of TIFF: save it with 8 or 16 bits") from error
        raise ValueError("its format is unknown") from error


@contextmanager
def _naming(path: Path | str) -> Iterator[None]:
    """Turn whatever a decoder raises at a file into one sentence that names it, and keep its warnings to itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow only warns up to twice its limit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except MemoryError:  # of the machine: sizes are looked at before
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            if Path(path).is_symlink():
                raise UnreadableError(f"{path} is a link that leads nowhere: mend it, or remove it.") from error
            raise UnreadableError(f"{path} does not exist: has the data folder moved?") from error
        raise UnreadableError(
            f"{path} cannot be read as a picture ({_reason(error)}): replace it, or remove it."
        ) from error


def _reason(error: Exception) -> str:
    """What a decoder says, in one line, which may be nothing."""
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
