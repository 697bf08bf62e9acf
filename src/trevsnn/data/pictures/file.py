"""A picture's file: its header at first, its pixels when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from trevsnn.data.part import UnreadableError

#: Endings of files that are taken as pictures, those of torchvision's folders.
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
WHITE_16 = 65535  # white of a picture with 16 bits
REDUCTIONS = (8, 4, 2)  # by which libjpeg divides a picture's sides while it decodes, almost for nothing


class PictureFile:
    """A picture file in memory, not yet decoded.

    Args:
        content: its bytes.
        name: of the file, in messages.
        grey: whether to decode to one channel, as :func:`read_grey`.

    Attributes:
        header: the picture as Pillow has opened it, with its size and mode.
        size: width and height of the whole picture, pixels.

    Raises:
        UnreadableError: it is no picture, or has more pixels than Pillow accepts.
    """

    def __init__(self, content: bytes, name: str, *, grey: bool = False) -> None:
        self.content, self.name, self.grey = content, name, grey
        with _naming(name):
            self.header = Image.open(BytesIO(content))
        self.size = self.header.size

    @classmethod
    def of(cls, path: Path, *, grey: bool = False) -> PictureFile:
        """A file's content.

        Raises:
            UnreadableError: also, it is missing or cannot be read.
        """
        with _naming(path):
            content = path.read_bytes()
        return cls(content, str(path), grey=grey)

    @property
    def is_jpeg(self) -> bool:
        """Whether it is a JPEG, which can be decoded at a reduced scale."""
        return isinstance(self.header, JpegImageFile)

    @property
    def is_plain_jpeg(self) -> bool:
        """Whether it is a JPEG that every decoder reads alike: grey or YCbCr, and not cut off before its end marker."""
        picture = self.header
        if not isinstance(picture, JpegImageFile) or picture.mode not in ("L", "RGB"):
            return False
        stored_as_rgb = picture.info.get("adobe_transform") == 0 or [part[0] for part in picture.layer] == [*b"RGB"]
        return not stored_as_rgb and self.content.endswith(b"\xff\xd9")

    def decode(self, reduction: int = 1) -> Image.Image:
        """The picture as RGB, or grey as :func:`read_grey` has it, be it CMYK, with a palette or with transparency. Call it once.

        Args:
            reduction: 1, or for a JPEG one of ``REDUCTIONS``: pixel (x, y) is about the mean of the square of so many
                pixels a side that begins at reduction * (x, y).

        Raises:
            UnreadableError: the file is truncated or damaged, or has levels of 32 bits.
        """
        with _naming(self.name):
            if reduction > 1:
                # The largest reduction that leaves this size, which is that by ``reduction`` without its partial pixels.
                self.header.draft(None, (self.size[0] // reduction, self.size[1] // reduction))
            return _as_grey(self.header) if self.grey else _as_rgb(self.header)


def read_rgb(path: Path) -> Image.Image:
    """A picture file as RGB, be it grey, CMYK, with a palette or with transparency. Of 16 bits the nearest of 8 are taken.

    Raises:
        UnreadableError: the file is missing, truncated, no picture, has levels of 32 bits, or more pixels than Pillow accepts.
    """
    return PictureFile.of(path).decode()


def read_grey(path: Path) -> Image.Image:
    """A picture file as one channel: mode L, 0 to 255; of 16 bits with all its levels, mode F, 0 to 1.

    Colours become their luma (ITU-R 601-2), which of equal channels is their common value.

    Raises:
        UnreadableError: as :func:`read_rgb`.
    """
    return PictureFile.of(path, grey=True).decode()


def is_16_bit(picture: Image.Image) -> bool:
    """Whether a picture has one channel of 16 bits. Pillow opens a PNG of these in mode I, too."""
    return picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")


def _as_rgb(picture: Image.Image) -> Image.Image:
    _refuse_32_bits(picture)
    if is_16_bit(picture):  # Pillow's own conversion makes 255 of all that is above
        levels_HW = np.asarray(picture).astype(np.uint32)
        picture = Image.fromarray(((levels_HW + 128) // 257).astype(np.uint8))
    return picture.convert("RGB")


def _as_grey(picture: Image.Image) -> Image.Image:
    _refuse_32_bits(picture)
    if is_16_bit(picture):
        return Image.fromarray(np.asarray(picture).astype(np.float32) / np.float32(WHITE_16))
    return picture.convert("RGB").convert("L")


def _refuse_32_bits(picture: Image.Image) -> None:
    if picture.mode in ("I", "F") and not is_16_bit(picture):
        raise ValueError("it has levels of 32 bits, whose white is not known: save it with 8 or 16 bits a channel")


@contextmanager
def _naming(path: Path | str) -> Iterator[None]:
    """Turn what Pillow raises at a file into one sentence that names it."""
    try:
        yield
    except FileNotFoundError as error:
        if Path(path).is_symlink():
            raise UnreadableError(f"{path} is a link that leads nowhere: mend it, or remove it.") from error
        raise UnreadableError(f"{path} does not exist: has the data folder moved?") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = "its format is unknown" if isinstance(error, UnidentifiedImageError) else error
        raise UnreadableError(f"{path} cannot be read as a picture ({why}): replace it, or remove it.") from error
