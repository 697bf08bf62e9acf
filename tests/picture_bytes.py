"""Pictures as the bytes of files, written by hand or by Pillow, and what they are read as."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from trevsnn.data.pictures.file import PictureFile
from trevsnn.errors import UnreadableError

RAMP = np.arange(256, dtype=np.uint32)  # of a picture of one row


TWELVE = (RAMP * 4095 + 127) // 255


def grey(content: bytes) -> np.ndarray:
    """A picture's first row in one channel, 0 to 1, float32."""
    found = PictureFile(content, "x", grey=True).decode()
    levels = np.asarray(found)[0]
    return levels if found.mode == "F" else levels.astype(np.float32) / 255


def rgb(content: bytes) -> list[tuple[int, ...]]:
    """A picture's first row in RGB."""
    return [tuple(pixel) for pixel in np.asarray(PictureFile(content, "x").decode())[0].tolist()]


def refused(content: bytes, message: str) -> None:
    for one_channel in (False, True):
        with pytest.raises(UnreadableError, match=message):
            PictureFile(content, "x", grey=one_channel).decode()


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(
    data: bytes,
    bits: int,
    *,
    photometric: int = 1,
    order: str = "<",
    packed: bool = False,
    samples: int = 1,
    **tags: int,
) -> bytes:
    """A TIFF of one row of 256 pixels, by the specification (TIFF 6.0): Pillow writes few of the kinds that it reads."""
    data = zlib.compress(data) if packed else data
    values = {
        256: 256,
        257: 1,
        258: bits,
        259: 8 if packed else 1,
        262: photometric,
        273: 0,
        277: samples,
        278: 1,
        279: len(data),
    }
    values |= {int(tag[1:]): value for tag, value in tags.items()}
    first = 8 + 2 + 12 * len(values) + 4
    of_samples = {258, 339} & values.keys() if samples > 2 else set()
    values[273] = first + 8 * len(of_samples)
    entries, beyond = b"", b""
    for tag, value in sorted(values.items()):
        if tag in of_samples:  # more than two numbers lie elsewhere
            entries += struct.pack(order + "HHII", tag, 3, samples, first + len(beyond))
            beyond += struct.pack(order + f"{samples}H", *[value] * samples).ljust(8, b"\0")
        elif samples == 2 and tag == 258:
            entries += struct.pack(order + "HHIHH", tag, 3, 2, value, value)
        else:
            entries += struct.pack(order + "HHII", tag, 4, 1, value)
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(values))
    return header + entries + bytes(4) + beyond.ljust(8 * len(of_samples), b"\0") + data


def png(depth: int, colour: int, row: bytes, width: int, clear: bytes) -> bytes:
    """A PNG of one row with a transparent colour, by the specification."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)), (b"tRNS", clear),
        (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""),
    ]  # fmt: skip
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def pnm(kind: bytes, most: int, levels: np.ndarray) -> bytes:
    data = levels.astype(">u2" if most > 255 else np.uint8).tobytes()
    return kind + b"\n%d 1\n%d\n" % (levels.shape[0], most) + data


def packed_12(levels: np.ndarray) -> bytes:
    """Two levels of 12 bits in three bytes."""
    pairs = levels.reshape(-1, 2).astype(int)
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs.tolist())
