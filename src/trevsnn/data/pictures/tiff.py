"""TIFFs that Pillow opens and reads as something else than they hold: they are refused."""

from __future__ import annotations

from math import ceil
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

#: Tags of a TIFF.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, SAMPLES, ROWS, PLANES, PALETTE, TILE_WIDTH, TILE_HEIGHT, TILES = 273, 277, 278, 284, 320, 322, 323, 324
EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING = 338, 339, 530
#: Their values.
WHITE_IS_ZERO, IN_PALETTE, IN_YCBCR, IN_LAB = 0, 3, 6, 8
_UNCOMPRESSED, _SIGNED, _SEPARATE, _PREMULTIPLIED = 1, 2, 2, 1


def numbers(picture: Image.Image, tag: int, default: int) -> tuple[Any, ...]:
    """The numbers of a TIFF's tag; of other pictures the default."""
    found = picture.tag_v2.get(tag, default) if isinstance(picture, TiffImageFile) else default
    return found if isinstance(found, tuple) else (found,)


def refuse_misread(picture: Image.Image) -> None:
    """Refuse a TIFF of which Pillow makes something else without a word; other pictures pass.

    Args:
        picture: as Pillow has opened it, not yet decoded.

    Raises:
        ValueError: says what it is, and how to save it.
    """
    if not isinstance(picture, TiffImageFile):
        return
    bits, photometric = max(numbers(picture, BITS, 1)), picture.tag_v2.get(PHOTOMETRIC)
    if photometric is None:
        raise ValueError(
            "nothing says whether 0 is black or white in it, a TIFF: save it with its photometric interpretation"
        )
    if bits <= 16 and _SIGNED in numbers(picture, SAMPLE_FORMAT, 1):
        raise ValueError("its levels have a sign, so that black and white are not known: save it without")
    tile = numbers(picture, TILE_WIDTH, 0)[0] * numbers(picture, TILE_HEIGHT, 0)[0]
    if Image.MAX_IMAGE_PIXELS is not None and tile > Image.MAX_IMAGE_PIXELS:  # be the picture as small as it may
        raise ValueError(f"its tiles have {tile:,} pixels, more than the {Image.MAX_IMAGE_PIXELS:,} that are read")
    if photometric == IN_PALETTE:
        _refuse_palettes(picture)
    if numbers(picture, COMPRESSION, _UNCOMPRESSED) == (_UNCOMPRESSED,):  # libtiff reads the others
        _refuse_planes(picture, bits, photometric)
        _refuse_missing_pieces(picture)
        if photometric == IN_YCBCR and numbers(picture, SUBSAMPLING, 2) != (1, 1):
            raise ValueError("its colours are subsampled but not compressed, which Pillow cannot read: save it as RGB")
    elif picture.mode == "F" and picture.tag_v2.prefix.startswith(b"MM"):
        raise ValueError(
            "it is a big-endian TIFF of compressed floats, whose bytes Pillow swaps: save it uncompressed, or with 8 or 16 bits"
        )


def _refuse_palettes(picture: TiffImageFile) -> None:
    """Of a palette Pillow takes the upper 8 of 16 bits, and black for what is missing."""
    palette, needed = numbers(picture, PALETTE, 0), 3 * 2 ** numbers(picture, BITS, 1)[0]
    if len(palette) < needed:
        raise ValueError(f"its palette has {len(palette)} numbers, and {needed} are needed")
    if 0 < max(palette) < 256:
        raise ValueError(f"its palette has numbers up to {max(palette)}, where 65,535 is white: save it as RGB")


def _refuse_planes(picture: TiffImageFile, bits: int, photometric: int) -> None:
    """Of uncompressed planes, one a channel, Pillow reads bytes as they are, whatever they mean."""
    as_they_are = bits == 8 and photometric not in (WHITE_IS_ZERO, IN_YCBCR, IN_LAB)
    as_they_are &= numbers(picture, FILL_ORDER, 1) == (1,) and _PREMULTIPLIED not in numbers(picture, EXTRA_SAMPLES, 0)
    if numbers(picture, PLANES, 1) == (_SEPARATE,) and not as_they_are:
        raise ValueError(
            "its channels lie one after the other (planar configuration 2) and are not plain bytes, which Pillow cannot read: "
            "save them pixel by pixel, or compressed"
        )


def _refuse_missing_pieces(picture: TiffImageFile) -> None:
    """What no strip or tile holds Pillow leaves black; of too many for one picture it takes the last."""
    width, height = (numbers(picture, tag, 0)[0] for tag in (WIDTH, HEIGHT))
    tiled = STRIPS not in picture.tag_v2
    across, down = (TILE_WIDTH, TILE_HEIGHT) if tiled else (WIDTH, ROWS)
    planes = numbers(picture, SAMPLES, 1)[0] if numbers(picture, PLANES, 1) == (_SEPARATE,) else 1
    needed = ceil(width / numbers(picture, across, 1)[0]) * ceil(height / numbers(picture, down, height)[0]) * planes
    there = len(numbers(picture, TILES if tiled else STRIPS, 0))
    if there != needed:
        raise ValueError(f"it has {there} parts (strips or tiles) of pixels, and needs {needed}")
