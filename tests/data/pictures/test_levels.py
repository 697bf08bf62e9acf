"""What is white, and what is behind the transparent, in every mode that Pillow opens."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from helpers import picture
from picture_bytes import RAMP, TWELVE, grey, packed_12, png, pnm, refused, rgb, saved, tiff
from trevsnn.data.pictures.file import PictureFile

DEEP = {
    "16-bit PNG": saved(Image.fromarray((RAMP * 257).astype(np.uint16)[None]), "PNG"),
    "PGM": pnm(b"P5", 65535, RAMP * 257),
    "TIFF by Pillow": saved(Image.fromarray((RAMP * 257).astype(np.uint16)[None]), "TIFF"),
    "plain PGM": b"P2 256 1 65535 " + " ".join(map(str, (RAMP * 257).tolist())).encode(),
} | {
    f"TIFF {order} packed {packed}": tiff((RAMP * 257).astype(f"{order}u2").tobytes(), 16, order=order, packed=packed)
    for order in "<>"
    for packed in (False, True)
}  # fmt: skip


@pytest.mark.parametrize("content", DEEP.values(), ids=DEEP)
def test_of_16_bits_65535_is_white(content):
    assert np.array_equal(grey(content), (RAMP * 257).astype(np.float32) / np.float32(65535))
    assert rgb(content) == [(level,) * 3 for level in range(256)]


@pytest.mark.parametrize("packed", [False, True])
def test_of_12_bits_4095_is_white(packed):
    content = tiff(packed_12(TWELVE), 12, packed=packed)
    assert np.array_equal(grey(content), TWELVE.astype(np.float32) / np.float32(4095))
    assert rgb(content) == [(level,) * 3 for level in range(256)]


@pytest.mark.parametrize("most", [1, 100, 255, 256, 1023, 4095, 65535])
def test_of_a_pgm_the_maximum_in_its_header_is_white(most):
    levels = np.linspace(0, most, 256).astype(np.uint32)
    found = grey(pnm(b"P5", most, levels))
    assert np.abs(found.astype(np.float64) - levels / most).max() <= 0.5 / (255 if most < 256 else 65535) + 1e-7
    colours = rgb(pnm(b"P6", most, np.repeat(levels[:, None], 3, 1)))
    assert max(abs(colour[0] - 255 * level / most) for colour, level in zip(colours, levels, strict=True)) <= 0.51
    assert colours[-1] == (255, 255, 255)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bits", [1, 8, 16, 32])
def test_where_0_is_white_levels_are_inverted(bits, packed):
    """A TIFF's photometric interpretation, of which Pillow inverts 8 bits and fewer alone."""
    data, options = {
        1: (np.packbits(RAMP > 99).tobytes(), {}), 8: (RAMP.astype(np.uint8).tobytes(), {}),
        16: ((RAMP * 257).astype("<u2").tobytes(), {}), 32: ((RAMP / 255).astype("<f4").tobytes(), {"t339": 3}),
    }[bits]  # fmt: skip
    straight, inverted = (tiff(data, bits, photometric=p, packed=packed, **options) for p in (1, 0))
    expected = (RAMP > 99) if bits == 1 else RAMP / 255
    assert np.allclose(grey(straight), expected, atol=1e-6)
    assert np.allclose(grey(inverted), 1 - expected, atol=1e-6)
    assert rgb(inverted) == [(255 - r, 255 - g, 255 - b) for r, g, b in rgb(straight)]


def test_of_floats_1_is_white():
    levels = np.float32([0, 0.25, 0.5, 1, 1 / 255])
    for content in (saved(Image.fromarray(levels[None]), "TIFF"), b"Pf\n5 1\n-1.0\n" + levels.tobytes()):
        assert np.array_equal(grey(content), levels)
        assert rgb(content) == [(level,) * 3 for level in (0, 64, 128, 255, 1)]


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([0, 1.5], r"its levels are floats from 0 to 1\.5, where 0 is black and 1 is white: scale them to 0\.\.1"),
        ([-0.1, 1], r"its levels are floats from -0\.1 to 1, where"),
        ([0, 255], r"its levels are floats from 0 to 255, where"),
        ([0, np.nan], r"not all of its levels are finite numbers"),
        ([0, np.inf], r"not all of its levels are finite numbers"),
    ],
)
def test_other_floats_are_refused_with_their_range(levels, message):
    refused(saved(Image.fromarray(np.float32([levels])), "TIFF"), message)


def test_levels_whose_white_is_not_known_are_refused():
    """Also compressed floats whose bytes Pillow swaps: it would read 1.0 as 4.6e-41."""
    wide = saved(Image.fromarray(np.int32([[0, 70000]])), "TIFF")
    refused(wide, r"levels of 32 bits, whose white is not known: save it with 8 or 16 bits a channel")
    refused(tiff(bytes(1024), 32), r"levels of 32 bits, whose white is not known")
    for bits in (8, 16):
        refused(tiff(bytes(256 * bits // 8), bits, t339=2), r"its levels have a sign")
    floats = (RAMP / 255).astype(">f4").tobytes()
    assert np.allclose(grey(tiff(floats, 32, order=">", t339=3)), RAMP / 255)
    refused(tiff(floats, 32, order=">", t339=3, packed=True), r"a big-endian TIFF of compressed floats")
    refused(
        tiff((RAMP * 257).astype(">u2").tobytes(), 16, photometric=0, order=">"),
        r"Pillow does not read this kind of TIFF",
    )


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packed", [False, True])
def test_of_16_bit_colours_the_upper_8_are_taken(order, packed):
    colours = np.stack([RAMP, 255 - RAMP, RAMP // 2], -1)
    content = tiff(
        (colours * 257).astype(f"{order}u2").tobytes(), 16, photometric=2, order=order, packed=packed, samples=3
    )
    assert rgb(content) == [tuple(colour) for colour in colours.tolist()]


@pytest.mark.parametrize(("most", "beyond"), [(100, 101), (254, 255), (1023, 1024), (4095, 65535)])
@pytest.mark.parametrize("kind", [b"P5", b"P6"])
def test_levels_above_the_maximum_of_the_header_are_refused(kind, most, beyond):
    levels = np.array([0, most, beyond] if kind == b"P5" else [[0, 1, beyond]])
    refused(pnm(kind, most, levels), rf"it has levels up to {beyond}, more than the maximum in its header, {most}")


WHITE, SHOWN = (255, 255, 255), (10, 20, 30)


def two_pixels(hidden: tuple[int, int, int]) -> Image.Image:
    """A pixel that is shown, and a transparent one with a colour behind it that is not to be seen."""
    image = Image.new("RGBA", (2, 1), (*SHOWN, 255))
    image.putpixel((1, 0), (*hidden, 0))
    return image


@pytest.mark.parametrize("hidden", [(0, 0, 0), (200, 100, 50)])
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGBA", {}), ("PNG", "LA", {}), ("TIFF", "RGBA", {}), ("TIFF", "LA", {}), ("TIFF", "PA", {}),
        ("WEBP", "RGBA", {"lossless": True, "exact": True}),
    ],
)  # fmt: skip
def test_behind_what_is_transparent_is_white(kind, mode, options, hidden):
    content = saved(two_pixels(hidden).convert(mode), kind, **options)
    shown = (18, 18, 18) if mode == "LA" else SHOWN
    assert rgb(content) == [shown, WHITE]
    assert grey(content).tolist() == pytest.approx([18 / 255, 1])


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_is_white(kind):
    image = Image.new("P", (3, 1))
    image.putpalette([*SHOWN, 200, 100, 50, 7, 7, 7])
    for x in range(3):
        image.putpixel((x, 0), x)
    assert rgb(saved(image, kind, transparency=1)) == [SHOWN, WHITE, (7, 7, 7)]
    assert rgb(saved(image, kind)) == [SHOWN, (200, 100, 50), (7, 7, 7)]
    if kind == "PNG":  # an alpha for each of the colours
        assert rgb(saved(image, kind, transparency=bytes([255, 0, 51]))) == [SHOWN, WHITE, (205, 205, 205)]


@pytest.mark.parametrize(
    ("depth", "colour", "row", "width", "clear", "expected"),
    [
        (1, 0, b"\x40", 3, b"\0\0", [255, 255, 255]),
        (1, 0, b"\x40", 3, b"\0\1", [0, 255, 0]),
        (2, 0, b"\x1b", 4, b"\0\1", [0, 255, 170, 255]),
        (4, 0, b"\x1b", 2, b"\0\1", [255, 187]),
        (8, 0, b"\1\2\3", 3, b"\0\2", [1, 255, 3]),
        (16, 0, b"\0\1\1\2\xff\xff", 3, b"\1\2", [0, 255, 255]),
        (8, 2, b"\1\1\1\2\2\2", 2, b"\0\1\0\1\0\1", [255, 2]),
        (16, 2, b"\1\2" * 3 + b"\3\4" * 3, 2, b"\1\2\1\2\1\2", [255, 3]),
    ],
)
def test_a_colour_that_a_png_has_transparent_is_white(depth, colour, row, width, clear, expected):
    """In the bits that the file has, which Pillow has not always scaled."""
    content = png(depth, colour, row, width, clear)
    assert rgb(content) == [(level,) * 3 for level in expected]
    assert np.round(grey(content) * 255).astype(int).tolist() == expected


def test_half_transparent_is_half_white():
    image = Image.new("RGBA", (1, 1), (0, 100, 200, 51))
    assert rgb(saved(image, "PNG")) == [(204, 224, 244)]


def test_associated_alpha_of_a_tiff_is_undone():
    """Colours that are multiplied by their alpha already, 128 of 255: they are not darkened again."""
    pixels = np.tile(np.uint8([50, 128]), 256).tobytes()
    content = tiff(pixels, 8, samples=2, t338=1)
    assert set(rgb(content)) == {(177, 177, 177)}  # 50 + 255 - 128


def test_other_colour_spaces_become_rgb():
    colour = Image.new("RGB", (2, 1), (200, 100, 50))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    images = {
        "LAB": ImageCms.profileToProfile(colour, srgb, lab, outputMode="LAB"), "YCbCr": colour.convert("YCbCr"),
        "CMYK": colour.convert("CMYK"),
    }  # fmt: skip
    for mode, image in images.items():
        content = saved(image, "TIFF")
        assert Image.open(io.BytesIO(content)).mode == mode
        assert np.abs(np.array(rgb(content)) - (200, 100, 50)).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "PPM"])
def test_ordinary_pictures_are_as_pillow_converts_them(mode, kind):
    """Bit for bit, as torchvision's folders read them."""
    try:
        content = saved(picture(1, (9, 7), mode), kind)
    except OSError:
        pytest.skip(f"{kind} has no {mode}")
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    assert np.array_equal(np.asarray(PictureFile(content, "x").decode()), np.asarray(expected))
    found = PictureFile(content, "x", grey=True).decode()
    assert np.array_equal(np.asarray(found), np.asarray(expected.convert("L")))
