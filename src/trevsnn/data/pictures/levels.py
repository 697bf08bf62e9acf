"""From what a file holds, in any mode of Pillow's, to RGB or one channel: what is white, and what is behind the transparent."""

from __future__ import annotations

from io import BytesIO
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

from trevsnn.data.pictures import tiff

WHITE_16 = 65535  # white of 16 bits
BACKGROUND = (255, 255, 255, 255)  # behind transparent pixels: white, as paper and as most programs have it
_PNG_DEPTH = 24  # byte of a PNG that holds the bits of a sample


def bits_of(picture: Image.Image, content: bytes) -> int:
    """Bits of a sample in a picture's file, which are not always those that Pillow makes of them."""
    if picture.format == "PNG":
        return content[_PNG_DEPTH]
    if isinstance(picture, TiffImageFile):
        return max(tiff.numbers(picture, tiff.BITS, 1))
    return {"I": 16, "F": 32}.get(picture.mode, 8)


def is_deep(picture: Image.Image) -> bool:
    """Whether a picture has one channel of more than 8 bits, of which Pillow keeps all."""
    return picture.mode.startswith("I") or picture.mode == "F"


def as_rgb(picture: Image.Image, bits: int) -> Image.Image:
    """A picture that Pillow has opened as RGB, 8 bits a channel.

    Args:
        picture: not yet decoded.
        bits: of a sample in its file, see :func:`bits_of`.

    Raises:
        ValueError: it has levels of which nothing says what is white, or floats beyond 0..1; or is a TIFF that Pillow misreads.
    """
    _refuse_misread(picture)
    if not is_deep(picture):
        return _opaque(picture, bits)
    levels_HW, white = _deep_levels(picture, bits)
    if picture.mode == "F":
        nearest_HW = np.floor(levels_HW.astype(np.float64) * 255 + 0.5)
    else:
        nearest_HW = (levels_HW * np.uint32(255) + np.uint32(white // 2)) // np.uint32(white)
    return Image.fromarray(nearest_HW.astype(np.uint8)).convert("RGB")


def as_grey(picture: Image.Image, bits: int) -> Image.Image:
    """A picture as one channel: mode L, 0 to 255; of more bits with all its levels, mode F, 0 to 1.

    Args, Raises: as :func:`as_rgb`.
    """
    if not is_deep(picture):
        return as_rgb(picture, bits).convert("L")
    _refuse_misread(picture)
    levels_HW, white = _deep_levels(picture, bits)
    return Image.fromarray(levels_HW.astype(np.float32) / np.float32(white))


def _deep_levels(picture: Image.Image, bits: int) -> tuple[NDArray[Any], int]:
    """Levels (H, W), uint32, or float32 of a picture in floats, and what white is among them; black is 0."""
    white_is_zero = tiff.numbers(picture, tiff.PHOTOMETRIC, 1) == (tiff.WHITE_IS_ZERO,)
    if picture.mode == "F":
        levels_HW, white = np.asarray(picture), 1
        if not np.isfinite(levels_HW).all():
            raise ValueError("not all of its levels are finite numbers")
        low, high = float(levels_HW.min()), float(levels_HW.max())
        if low < 0 or high > 1:
            raise ValueError(
                f"its levels are floats from {low:g} to {high:g}, where 0 is black and 1 is white: scale them to 0..1, or "
                "save it with 8 or 16 bits a channel"
            )
    else:
        white = _white_of(picture, bits)
        levels_HW = np.asarray(picture).astype(np.uint32)
        if int(levels_HW.max()) > white:
            raise ValueError(f"it has levels up to {levels_HW.max()}, more than its {bits} bits hold")
    if white_is_zero:  # Pillow inverts 8 bits and fewer alone
        levels_HW = levels_HW.dtype.type(white) - levels_HW
    clear = picture.info.get("transparency")
    if isinstance(clear, int):  # the level that a 16-bit PNG has transparent
        levels_HW = np.where(levels_HW == clear, levels_HW.dtype.type(white), levels_HW)
    return levels_HW, white


def _refuse_misread(picture: Image.Image) -> None:
    tiff.refuse_misread(picture)
    _refuse_beyond_white(picture)


def _refuse_beyond_white(picture: Image.Image) -> None:
    """Levels of a PGM or PPM above the maximum in its header, which Pillow takes for white."""
    if not isinstance(picture, PpmImageFile):
        return
    for codec, _, start, about in picture.tile:
        if codec == "ppm" and isinstance(about, tuple):
            most = int(about[-1])
            sample, content = np.dtype(np.uint8 if most < 256 else ">u2"), cast("BytesIO", picture.fp).getbuffer()
            count = picture.width * picture.height * len(picture.getbands())
            levels_N = np.frombuffer(content, sample, min(count, (len(content) - start) // sample.itemsize), start)
            if levels_N.max(initial=0) > most:
                raise ValueError(f"it has levels up to {levels_N.max()}, more than the maximum in its header, {most}")


def _white_of(picture: Image.Image, bits: int) -> int:
    """White of a picture of one channel with whole numbers.

    Pillow makes 65535 of the largest level of a PGM, whatever it is, and opens these, and some PNGs, in mode I.
    """
    if picture.mode.startswith("I;16"):
        return 2**bits - 1 if picture.format == "TIFF" and bits < 16 else WHITE_16
    if picture.format in ("PNG", "PPM"):
        return WHITE_16
    raise ValueError("it has levels of 32 bits, whose white is not known: save it with 8 or 16 bits a channel")


def _opaque(picture: Image.Image, bits: int) -> Image.Image:
    """A picture of 8 bits as RGB, on the background where it is transparent."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    clear = picture.info.get("transparency")
    if picture.format == "PNG" and picture.mode in ("L", "RGB") and clear is not None:
        picture.info["transparency"] = _as_shown(clear, bits)
    whole = Image.new("RGBA", picture.size, BACKGROUND)
    clear_picture = picture.convert("LA") if picture.mode == "La" else picture  # the only way that Pillow has
    whole.alpha_composite(clear_picture.convert("RGBA"))
    return whole.convert("RGB")


def _as_shown(clear: Any, bits: int) -> Any:
    """The colour that a PNG has transparent, in its own bits, in the 8 that Pillow reads: of 16 bits the upper 8."""
    if isinstance(clear, tuple):
        return tuple(_as_shown(level, bits) for level in clear)
    level = clear & (2**bits - 1)
    return level >> 8 if bits == 16 else level * (255 // (2**bits - 1))
