"""TIFFs that Pillow opens and reads as something else than they hold."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from picture_bytes import RAMP, grey, refused, rgb, saved, tiff

PLAIN = RAMP.astype(np.uint8).tobytes()


DEEP_PLANES = b"".join((level * 257).astype("<u2").tobytes() for level in (RAMP, 255 - RAMP, RAMP // 2))


def without(content: bytes, tag: int) -> bytes:
    return content.replace(struct.pack("<HH", tag, 4), struct.pack("<HH", 65000, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tiff(PLAIN, 8, photometric=0, t284=2), r"its channels lie one after the other \(planar configuration 2\)"),
        (tiff(PLAIN, 4, t284=2), r"its channels lie one after the other"),
        (tiff(DEEP_PLANES, 16, photometric=2, samples=3, t284=2), r"its channels lie one after the other"),
        (tiff(PLAIN * 3, 8, photometric=8, samples=3, t284=2), r"its channels lie one after the other"),
        (without(tiff(PLAIN, 8), 262), r"nothing says whether 0 is black or white in it, a TIFF"),
        (without(tiff(DEEP_PLANES[:512], 16), 262), r"nothing says whether 0 is black or white in it, a TIFF"),
        (tiff(PLAIN * 3, 8, photometric=6, samples=3), r"its colours are subsampled but not compressed"),
        (tiff(PLAIN, 8, t322=40000, t323=40000), r"its tiles have 1,600,000,000 pixels, more than the 89,478,485"),
        (tiff(PLAIN * 2, 8, t257=2), r"it has 1 parts \(strips or tiles\) of pixels, and needs 2"),
    ],
    ids=["0 is white", "4 bits", "16 bits", "LAB", "8 bits, no photometric", "16 bits, no photometric", "YCbCr", "huge tiles", "a missing strip"],
)  # fmt: skip
def test_a_tiff_that_pillow_misreads_is_refused(content, message):
    """It opens each of them, and gives other levels than they hold, black for what is missing, or what lies beyond."""
    refused(content, message)
    Image.open(io.BytesIO(content)).load()


def test_planes_of_plain_bytes_are_read():
    assert np.array_equal(grey(tiff(PLAIN, 8, t284=2)), RAMP.astype(np.float32) / 255)


def test_a_palette_of_too_small_or_too_few_numbers_is_refused():
    """Pillow takes the upper 8 of 16 bits, of which some programs write the lower, and all becomes black."""
    image = Image.fromarray(RAMP.astype(np.uint8)[None]).convert("P")
    image.putpalette(np.repeat(255 - RAMP, 3).astype(np.uint8).tobytes())
    content, levels = saved(image, "TIFF"), np.tile(255 - RAMP, 3).astype("<u2")
    assert rgb(content) == [(255 - level,) * 3 for level in range(256)]
    assert (levels * 256).tobytes() in content
    refused(
        content.replace((levels * 256).tobytes(), levels.tobytes()), r"its palette has numbers up to 255, where 65,535"
    )
    count = struct.pack("<HHI", 320, 3, 768)
    refused(content.replace(count, struct.pack("<HHI", 320, 3, 30)), r"its palette has 30 numbers, and 768 are needed")
