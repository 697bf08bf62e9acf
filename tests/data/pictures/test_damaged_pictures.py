"""Pictures of strangers: damaged at every place, of other formats, too large, and files that are none."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import picture
from trevsnn.data.pictures import file as file_module
from trevsnn.data.pictures.file import PictureFile, read_grey, read_rgb
from trevsnn.data.pictures.oddities import oddities
from trevsnn.errors import UnreadableError

DAMAGES = 2000  # of each format


def saved(kind: str, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    picture(1, (12, 9), mode).save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


FORMATS = {
    "JPEG": [saved("JPEG", exif=exif(6)), saved("JPEG", "L", progressive=True), saved("JPEG", "CMYK")],
    "PNG": [saved("PNG", exif=exif(3)), saved("PNG", "P", transparency=1), saved("PNG", "RGBA"), saved("PNG", "I;16")],
    "WEBP": [saved("WEBP", exif=exif(8)), saved("WEBP", "RGBA", lossless=True)],
    "TIFF": [
        saved("TIFF", exif=exif(5)), saved("TIFF", "F"), saved("TIFF", "I;16", compression="tiff_adobe_deflate"),
        saved("TIFF", "LAB"), saved("TIFF", compression="jpeg"), saved("TIFF", "1", compression="group4"),
    ],
    "BMP": [saved("BMP"), saved("BMP", "P"), saved("BMP", "1")],
    "PPM": [saved("PPM"), saved("PPM", "I;16"), saved("PPM", "1"), saved("PPM", "F"), b"P3 2 1 1000 0 1 1000 7 8 9 "],
    "GIF": [saved("GIF"), saved("GIF", "P", transparency=1, save_all=True, append_images=[picture(2, (12, 9), "P")])],
}  # fmt: skip


def damaged(whole: bytes, dice: np.random.Generator) -> bytes:
    """The bytes with up to five of them changed, and in one of four cases cut, or with some taken out or put in twice."""
    content = bytearray(whole)
    for place in dice.integers(0, len(content), dice.integers(1, 6)):
        content[place] = dice.choice([0, 255, content[place] ^ (1 << dice.integers(8)), dice.integers(256)])
    start, end = sorted(dice.integers(0, len(content), 2).tolist())
    change = dice.integers(16)
    if change == 0:
        del content[start:]
    elif change == 1:
        del content[start:end]
    elif change == 2:
        content[start:start] = content[start:end]
    return bytes(content)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("default")  # as at a user's; an error would be taken for one of the decoder's
def test_damage_ends_in_a_picture_or_in_one_sentence(kind, recwarn, capfd):
    dice = np.random.default_rng(0)
    outcomes = {"picture": 0, "sentence": 0}
    for number in range(DAMAGES):
        content = damaged(FORMATS[kind][number % len(FORMATS[kind])], dice)
        file, found, sentence = None, None, ""
        try:
            file = PictureFile(content, "x.png", grey=bool(number % 2))
            found = file.decode()
        except UnreadableError as error:
            sentence = str(error)
        if file is None or found is None:
            assert sentence.startswith("x.png cannot be read as a picture (")
            assert "\n" not in sentence
            outcomes["sentence"] += 1
        else:
            assert found.size == file.size
            assert found.mode in (("L", "F") if number % 2 else ("RGB",))
            outcomes["picture"] += 1
            if kind == "PNG":  # whose pixels have checksums
                whole = PictureFile(FORMATS[kind][number % len(FORMATS[kind])], "x.png", grey=bool(number % 2)).decode()
                assert found.tobytes() == whole.tobytes()
    assert outcomes["sentence"] > DAMAGES // 50, outcomes
    assert outcomes["picture"] > (0 if kind == "PNG" else DAMAGES // 50), outcomes
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def with_exif_at_the_end(content: bytes) -> bytes:
    """A PNG with its EXIF after the pixels, which Pillow decodes to find it."""
    name_and_data = b"eXIf" + exif(6).tobytes()
    chunk = struct.pack(">I", len(name_and_data) - 4) + name_and_data + struct.pack(">I", zlib.crc32(name_and_data))
    return content[:-12] + chunk + content[-12:]


def test_a_png_with_exif_is_refused_wherever_its_pixels_are_damaged():
    """An error of the pixels was once taken for one of EXIF, and what had been decoded until then for the picture."""
    content = with_exif_at_the_end(saved("PNG"))
    assert PictureFile(content, "x").size == (9, 12)
    start = content.index(b"IDAT")
    size = int.from_bytes(content[start - 4 : start])
    for place in range(start + 4, start + 4 + size):
        wrong = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        with pytest.raises(UnreadableError):
            PictureFile(wrong, "x").decode()


def test_a_decoder_s_errors_of_any_class_are_one_sentence(tmp_path):
    """Also those that are no OSError."""
    for number, content in enumerate(
        {
            "no bits": saved("TIFF").replace(struct.pack("<HHI", 258, 3, 3), struct.pack("<HHI", 258, 2, 3)),
            "no strips": saved("TIFF").replace(struct.pack("<HH", 273, 4), struct.pack("<HH", 999, 4)),
            "maxval": b"P5 1 1 99999 x",
            "width": b"P5 x 1 255 x",
            "cut": saved("PNG")[:60],
            "empty": b"",
        }.values()
    ):
        path = tmp_path / f"{number}.png"
        path.write_bytes(content)
        with pytest.raises(UnreadableError, match=rf"{number}\.png cannot be read as a picture \(.+\): replace it"):
            read_rgb(path)


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>",
        saved("ICO"), saved("JPEG2000"), saved("TGA"), saved("PDF"), saved("ICNS"),
    ],
    ids=["PostScript", "SVG", "ICO", "JPEG 2000", "TGA", "PDF", "ICNS"],
)  # fmt: skip
def test_other_formats_are_not_opened_whatever_their_name(tmp_path, monkeypatch, content):
    """A program named gs, which Pillow starts for PostScript, would leave a file behind."""
    (tmp_path / "bin").mkdir()
    gs = tmp_path / "bin" / "gs"
    gs.write_text(f"#!/bin/sh\n[ $1 = --version ] && echo 10 && exit\ntouch {tmp_path}/started\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    for name in ("x.png", "x.jpg", "x.tif"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableError, match=r"\(its format is unknown\): replace it"):
            read_rgb(tmp_path / name)
    assert not (tmp_path / "started").exists()


def png_of(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one bit a pixel, black."""
    rows = zlib.compress(bytes((width + 15) // 8 * height), 9)
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    parts = (header, *chunks, (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


@pytest.mark.parametrize(("width", "height"), [(9460, 9460), (20000, 9000), (2**31 - 1, 1), (10**5, 10**5)])
def test_too_many_pixels_are_refused_before_memory_is_taken(tmp_path, width, height):
    """Just above Pillow's limit, where it only warns by itself, and far above it."""
    header = png_of(1, 1).replace(struct.pack(">II", 1, 1), struct.pack(">II", width, height))
    body = header[12:29]
    content = header[:29] + struct.pack(">I", zlib.crc32(body)) + header[33:]
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(UnreadableError, match=r"bomb\.png cannot be read .*it has more than 89,478,485 pixels"):
        read_rgb(tmp_path / "bomb.png")


def test_text_that_unpacks_to_megabytes_is_refused():
    text = b"Comment\0\0" + zlib.compress(bytes(10**8), 9)
    with pytest.raises(UnreadableError, match="Decompressed data too large"):
        PictureFile(png_of(4, 4, (b"zTXt", text)), "x.png").decode()
    assert PictureFile(png_of(4, 4, (b"zTXt", b"Comment\0\0" + zlib.compress(b"short"))), "x.png").decode().size == (
        4,
        4,
    )


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a pipe or a device"), ("folder", "a folder"), ("device", "a pipe or a device")):
        for read in (read_rgb, read_grey, oddities):
            with pytest.raises(
                UnreadableError, match=rf"{name}\.png cannot be read as a picture \(it is {kind}, and no regular file"
            ):
                read(tmp_path / f"{name}.png")


def test_a_file_of_gigabytes_is_refused_by_its_size(tmp_path):
    """It takes no room on the disk, and no memory."""
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(file_module.MOST_BYTES + 1)
    with pytest.raises(UnreadableError, match=r"it has 1,073,741,825 bytes, and 1,073,741,824 at most are read"):
        read_rgb(tmp_path / "huge.png")


def test_links_that_lead_nowhere_or_to_themselves_are_named(tmp_path):
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "x")
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    for name in ("nowhere", "itself"):
        with pytest.raises(UnreadableError, match=rf"{name}\.png is a link that leads nowhere: mend it, or remove it"):
            read_rgb(tmp_path / f"{name}.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path):
    picture(1).save(tmp_path / "mine.png")
    (tmp_path / "mine.png").chmod(0)
    with pytest.raises(UnreadableError, match=r"mine\.png cannot be read as a picture \(.*Permission denied"):
        read_rgb(tmp_path / "mine.png")


def test_damaged_exif_changes_nothing(tmp_path):
    """It is ignored, and the picture is the one without it."""
    for ending in ("jpg", "png", "webp"):
        picture(1).save(Path(plain := tmp_path / f"plain.{ending}"))
        for number, block in enumerate(
            (b"Exif\0\0no", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"MM\0*\0\0\0\x08\xff\xff" * 3)
        ):
            picture(1).save(path := tmp_path / f"{number}.{ending}", exif=block)
            assert np.array_equal(np.asarray(read_rgb(path)), np.asarray(read_rgb(plain)))
