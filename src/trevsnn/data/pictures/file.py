"""A picture's file: its header at first, its pixels when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from trevsnn.data.part import UnreadableError

REDUCTIONS = (8, 4, 2)  # by which libjpeg divides a picture's sides while it decodes, almost for nothing


class PictureFile:
    """A picture file in memory, not yet decoded.

    Args:
        content: its bytes.
        name: of the file, in messages.

    Attributes:
        header: the picture as Pillow has opened it, with its size and mode.
        size: width and height of the whole picture, pixels.

    Raises:
        UnreadableError: it is no picture, or has more pixels than Pillow accepts.
    """

    def __init__(self, content: bytes, name: str) -> None:
        self.content, self.name = content, name
        with _naming(name):
            self.header = Image.open(BytesIO(content))
        self.size = self.header.size

    @classmethod
    def of(cls, path: Path) -> PictureFile:
        """A file's content.

        Raises:
            UnreadableError: also, it is missing or cannot be read.
        """
        with _naming(path):
            content = path.read_bytes()
        return cls(content, str(path))

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
        """The picture as RGB, be it grey, CMYK, with a palette or with transparency. Call it once.

        Args:
            reduction: 1, or for a JPEG one of ``REDUCTIONS``: pixel (x, y) is about the mean of the square of so many
                pixels a side that begins at reduction * (x, y).

        Raises:
            UnreadableError: the file is truncated or damaged.
        """
        with _naming(self.name):
            if reduction > 1:
                # The largest reduction that leaves this size, which is that by ``reduction`` without its partial pixels.
                self.header.draft(None, (self.size[0] // reduction, self.size[1] // reduction))
            return self.header.convert("RGB")


def read_rgb(path: Path) -> Image.Image:
    """A picture file as RGB, be it grey, CMYK, with a palette or with transparency.

    Raises:
        UnreadableError: the file is missing, truncated, no picture, or has more pixels than Pillow accepts.
    """
    return PictureFile.of(path).decode()


@contextmanager
def _naming(path: Path | str) -> Iterator[None]:
    """Turn what Pillow raises at a file into one sentence that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UnreadableError(f"{path} does not exist: has the data folder moved?") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = "its format is unknown" if isinstance(error, UnidentifiedImageError) else error
        raise UnreadableError(f"{path} cannot be read as a picture ({why}): replace it, or remove it.") from error
