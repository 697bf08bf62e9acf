"""Pictures are turned as their EXIF data say, everywhere that they are read."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin
from torchvision.datasets import ImageFolder

from helpers import folder_config, folder_of_pictures, picture
from trevsnn.data.files import read_inputs
from trevsnn.data.loading import TensorDataset, make_loader
from trevsnn.data.part import About
from trevsnn.data.pictures.file import REDUCTIONS, PictureFile, read_grey, read_rgb
from trevsnn.data.pictures.look import look_at
from trevsnn.data.pictures.shown import size_warning
from trevsnn.data.sets import load
from trevsnn.run.config import recipe_config


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


@pytest.mark.parametrize("orientation", range(1, 10))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_a_picture_is_as_pillow_turns_it(tmp_path, ending, orientation):
    """In RGB and in one channel; 9 is no orientation. A TIFF's is a part of its format, and turned in any case."""
    path = tmp_path / f"x.{ending}"
    picture(1, (12, 9)).save(path, exif=exif(orientation))
    with Image.open(path) as stored:
        expected = ImageOps.exif_transpose(stored).convert("RGB")
        ignored = stored.convert("RGB")
    assert expected.size == ((9, 12) if orientation in (5, 6, 7, 8) else (12, 9))
    file = PictureFile.of(path)
    assert file.size == expected.size
    assert np.array_equal(np.asarray(file.decode()), np.asarray(expected))
    assert np.array_equal(np.asarray(read_grey(path)), np.asarray(expected.convert("L")))
    plain = PictureFile.of(path, exif_orientation=False)
    assert plain.size == ignored.size
    assert np.array_equal(np.asarray(plain.decode()), np.asarray(ignored))


def test_a_png_says_it_in_other_places_as_well(tmp_path):
    """After its pixels, as text of ImageMagick, or as XMP."""
    whole = io.BytesIO()
    picture(1, (12, 9)).save(whole, "PNG", exif=exif(6))
    content = whole.getvalue()
    start = content.index(b"eXIf") - 4
    chunk = content[start : content.index(b"IDAT") - 4]
    end = content.index(b"IEND") - 4
    after = content[:start] + content[start + len(chunk) : end] + chunk + content[end:]
    expected = np.asarray(picture(1, (12, 9)).transpose(Image.Transpose.ROTATE_270))
    text, xmp = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    block = b"Exif\0\0" + exif(6).tobytes().removeprefix(b"Exif\0\0")
    text.add_text("Raw profile type exif", f"\nexif\n{len(block)}\n{block.hex()}\n")
    xmp.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta tiff:Orientation="6"/>')
    (tmp_path / "after.png").write_bytes(after)
    picture(1, (12, 9)).save(tmp_path / "text.png", pnginfo=text)
    picture(1, (12, 9)).save(tmp_path / "xmp.png", pnginfo=xmp)
    for name in ("after", "text", "xmp"):
        assert PictureFile.of(tmp_path / f"{name}.png").size == (9, 12)
        assert np.array_equal(np.asarray(read_rgb(tmp_path / f"{name}.png")), expected), name


def test_deep_pictures_are_turned(tmp_path):
    levels_HW = np.arange(12 * 9, dtype=np.uint16).reshape(9, 12) * 500
    for ending in ("png", "tif"):
        Image.fromarray(levels_HW).save(tmp_path / f"x.{ending}", exif=exif(6))
        found = np.asarray(read_grey(tmp_path / f"x.{ending}"))
        assert np.array_equal(found, np.rot90(levels_HW, -1).astype(np.float32) / np.float32(65535))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(101, 75), (96, 64), (33, 90)])
def test_reduced_decoding_shows_the_same_region(tmp_path, orientation, size):
    """A smooth picture, whose size is no multiple of the reduction: a shift by a pixel would be seen."""
    y, x = np.mgrid[: size[1], : size[0]]
    smooth = np.stack([255 * x / size[0], 255 * y / size[1], 127 + 0 * x], -1).astype(np.uint8)
    path = tmp_path / "x.jpg"
    Image.fromarray(smooth).save(path, quality=100, subsampling=0, exif=exif(orientation))
    for reduction in REDUCTIONS:
        file = PictureFile.of(path)
        whole = np.asarray(file.decode(), np.float64)
        again = PictureFile.of(path)
        margin_x, margin_y = again.margin(reduction)
        small = np.asarray(again.decode(reduction), np.float64)
        rows, columns = np.mgrid[1 : small.shape[0] - 1, 1 : small.shape[1] - 1]
        # Pixel (x, y) is the mean of the square that begins at reduction * (x, y) - margin: here its middle's value.
        top, left = reduction * rows - margin_y, reduction * columns - margin_x
        means = sum(whole[top + i, left + j] for i in range(reduction) for j in range(reduction)) / reduction**2
        assert np.abs(small[1:-1, 1:-1] - means).max() < 2.5


OPTIONS = [
    {}, {"reduced": True}, {"on_device": True}, {"crop": "resized"}, {"crop": "resized", "reduced": True},
    {"crop": "resized", "on_device": True},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("training", [False, True])
def test_a_turned_file_is_loaded_as_the_upright_one(tmp_path, options, training):
    """Whole, reduced, and decoded on the device; crops are drawn from the turned size. Of 36 rows, none is decoded coarser."""
    for name, turn in (("upright", False), ("turned", True)):
        for part in ("train", "val"):
            for label, kind in enumerate(("cat", "dog")):
                folder = tmp_path / name / part / kind
                folder.mkdir(parents=True)
                for i in range(2):
                    shown = picture(10 * label + i, (24, 36))
                    stored = shown.transpose(Image.Transpose.ROTATE_90) if turn else shown
                    stored.save(folder / f"{i}.png", exif=exif(6 if turn else 1))
    found = []
    for name in ("upright", "turned"):
        config = folder_config(tmp_path / name, image_size=(30, 20), **options)
        part = load(config, "train", 1)
        dataset = TensorDataset(part, config, 0, timesteps=1, training=training)
        keys = [(0, index) for index in range(len(dataset))]
        loader = make_loader(dataset, keys, 4, config, torch.device("cpu"))
        ((inputs, labels, _),) = list(loader)
        found.append((inputs, labels))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_a_turned_jpeg_is_not_left_to_the_device(tmp_path):
    """Which takes no notice of EXIF."""
    for orientation in (1, 6):
        picture(1).save(tmp_path / f"{orientation}.jpg", exif=exif(orientation))
    assert PictureFile.of(tmp_path / "1.jpg").is_plain_jpeg
    assert not PictureFile.of(tmp_path / "6.jpg").is_plain_jpeg
    assert PictureFile.of(tmp_path / "6.jpg", exif_orientation=False).is_plain_jpeg


def test_what_looks_at_sizes_and_predict_turn_as_well(tmp_path):
    folder_of_pictures(tmp_path, ("train", "val"), n=3)
    for path in tmp_path.rglob("*.png"):
        picture(int(path.stem), (12, 60)).save(path, exif=exif(8))
    config, upright = folder_config(tmp_path, image_size=(6, 30)), folder_config(tmp_path, exif_orientation=False)
    look = look_at(tmp_path)
    assert (look.height, look.width) == (12, 60)
    look = look_at(tmp_path, exif_orientation=False)
    assert (look.height, look.width) == (60, 12)
    assert size_warning(load(config, "train", 1), config) is None
    assert "of about 60 x 12" in str(size_warning(load(upright, "train", 1), folder_config(tmp_path, image_size=100)))
    about = About(("cat", "dog"), 3, (0.0,) * 3, (1.0,) * 3)
    path = tmp_path / "val" / "cat" / "000.png"
    whole = folder_config(tmp_path, image_size=(12, 60))
    expected = np.asarray(picture(0, (12, 60)).transpose(Image.Transpose.ROTATE_90), np.float32) / 255
    for reduced in (False, True):
        whole.reduced = reduced
        assert np.allclose(read_inputs([path], whole, about, 1)[0].numpy().transpose(1, 2, 0), expected)


def test_imagenet_s_recipes_do_not_turn_as_torchvision_does_not(tmp_path):
    assert not recipe_config("imagenet-tiny", []).data.exif_orientation
    assert recipe_config("cifar-10", []).data.exif_orientation
    (tmp_path / "val" / "cat").mkdir(parents=True)
    picture(1, (12, 9)).save(path := Path(tmp_path / "val" / "cat" / "x.jpg"), exif=exif(6))
    ((theirs, _),) = ImageFolder(str(tmp_path / "val"))
    assert np.array_equal(np.asarray(read_rgb(path, exif_orientation=False)), np.asarray(theirs))
