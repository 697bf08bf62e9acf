"""JPEGs decoded at a reduced scale: the same regions, nearly the same pixels, and the same pixels where nothing is gained."""

import io
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import v2

from helpers import folder_config, picture
from trevsnn.data.config import DataConfig
from trevsnn.data.files import read_inputs
from trevsnn.data.loading import IGNORED, TensorDataset
from trevsnn.data.pictures.cover import covering_size
from trevsnn.data.pictures.file import REDUCTIONS, PictureFile
from trevsnn.data.pictures.folders import PictureFolder
from trevsnn.data.pictures.reduced import Reduced, largest_reduction
from trevsnn.data.sampling import seeded
from trevsnn.data.sets import load
from trevsnn.errors import UnreadableError

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"  # china.jpg and flower.jpg, 640 x 427


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> PictureFolder:
    """As they are, one enlarged to an odd size, and one as PNG."""
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("china.jpg", "flower.jpg"):
        shutil.copy(PHOTOGRAPHS / name, folder)
    with Image.open(PHOTOGRAPHS / "china.jpg") as photograph:
        photograph.resize((2051, 1369), Image.Resampling.BICUBIC).save(folder / "large.jpg", quality=90)
    with Image.open(PHOTOGRAPHS / "flower.jpg") as photograph:
        photograph.save(folder / "flower.png")
    return PictureFolder(folder, ["china.jpg", "flower.jpg", "large.jpg", "flower.png"], [0, 1, 0, 1], ["a", "b"])


def tensors(part: PictureFolder, *, training: bool, epoch: int = 0, **options: object) -> torch.Tensor:
    config = DataConfig(name="folder", **options)
    dataset = TensorDataset(part, config, 3, timesteps=1, training=training)
    return torch.stack([dataset[epoch, index][0] for index in range(len(part))])


def grey_levels(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Differences of normalised pictures, in grey levels of 255."""
    return (one - other) * torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 5000), st.integers(1, 5000))
def test_the_largest_reduction_leaves_as_many_pixels_as_are_shown(width, height, across, down):
    found = largest_reduction((0, 0, across, down), (width, height))
    fits = [r for r in (1, *REDUCTIONS) if across / r >= width and down / r >= height]
    assert found == max(fits, default=1)


@pytest.mark.parametrize("reduction", [1, *REDUCTIONS])
@pytest.mark.parametrize("size", [(8, 8), (9, 16), (17, 31), (33, 8), (90, 64)])
def test_a_jpeg_is_decoded_at_the_reduction_asked_for(tmp_path, size, reduction):
    """Of an odd size the last pixel stands for a part of a square; the others are means of whole ones."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    Image.fromarray((2 * x + y).astype(np.uint8)).save(tmp_path / "ramp.jpg", quality=100)
    found = np.asarray(PictureFile.of(tmp_path / "ramp.jpg").decode(reduction))
    whole = [side // reduction for side in size]
    assert found.shape == (-(-size[1] // reduction), -(-size[0] // reduction), 3)
    x, y = np.meshgrid(np.arange(whole[0]), np.arange(whole[1]))
    means = (2 * x + y) * reduction + 3 * (reduction - 1) / 2
    assert np.abs(found[: whole[1], : whole[0], 0] - means).max() <= 2


@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 50))
def test_the_shorter_side_is_resized_as_torchvision_does(width, height, shorter):
    if max(width, height) > 20 * min(width, height):
        return
    assert v2.Resize(shorter)(Image.new("L", (width, height))).size == covering_size(
        (width, height), (shorter, shorter)
    )


def test_the_crop_is_drawn_as_without(photographs):
    crop = RandomResizedCropAndInterpolation(64, (0.08, 1.0))
    for index in range(len(photographs)):
        for seed in range(20):
            with seeded(seed):
                top, left, height, width = crop.get_params(photographs.read(index), crop.scale, crop.ratio)
                following = random.random(), float(torch.rand(()))
            with seeded(seed):
                region, size = Reduced(crop).plan(photographs.open(index))
                assert (random.random(), float(torch.rand(()))) == following
            assert (region, size) == ((left, top, width, height), (64, 64))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_region_is_the_same_to_a_small_part_of_a_pixel(tmp_path, reduction):
    """On a ramp a shift by one pixel of what is shown changes all pixels by its slope, 6 grey levels and more."""
    dice = random.Random(reduction)
    for _ in range(10):
        size = dice.randint(20, 40)
        height, width = (dice.randint(size * reduction, 2 * size * reduction - 1) for _ in range(2))
        top, left, below, right = (dice.randint(0, 15) for _ in range(4))
        down, across = top + height + below, left + width + right
        x, y = np.meshgrid(np.linspace(0, 255, across), np.linspace(0, 255, down))
        ramp = np.stack([x, y, np.zeros_like(x)], 2).round().astype(np.uint8)
        Image.fromarray(ramp).save(tmp_path / "ramp.jpg", quality=100, subsampling=0)
        crop = RandomResizedCropAndInterpolation(size)
        crop.get_params = lambda *_, box=(top, left, height, width): box
        file = PictureFile.of(tmp_path / "ramp.jpg")
        assert largest_reduction(*Reduced(crop).plan(file)) == reduction
        found = np.asarray(Reduced(crop)(file), np.float64)
        full = np.asarray(crop(PictureFile.of(tmp_path / "ramp.jpg").decode()), np.float64)
        slope = np.array([255 / across * width / size, 255 / down * height / size])  # levels a pixel
        shift = np.abs((found - full)[..., :2].mean((0, 1))) / slope
        assert shift.max() < 0.05


@pytest.mark.parametrize("options", [{"crop": "resized"}, {"crop": "pad", "crop_padding": 4}, {"crop_share": 0.875}])
def test_pixels_differ_little_from_full_decoding(photographs, options):
    """The bounds are twice what was found."""
    training = "crop_share" not in options
    for size in (16, 64):
        for epoch in range(5):
            given = {"image_size": size, "training": training, "epoch": epoch, **options}
            found = grey_levels(tensors(photographs, reduced=True, **given), tensors(photographs, **given))
            assert torch.equal(found[3], torch.zeros_like(found[3]))  # the PNG
            assert float(found.abs().mean()) < 2.5
            assert float(found.square().mean().sqrt()) < 4
            assert float(found.mean((2, 3)).abs().max()) < 1.5


@pytest.mark.parametrize("training", [True, False])
def test_what_needs_its_pixels_is_the_same_bit_for_bit(photographs, training):
    small = photographs.select(np.array([0, 1, 3]))
    options = {
        "image_size": 224,
        "crop": "resized",
        "flip": True,
        "auto_augment": "rand-m9-mstd0.5-inc1",
        "erasing": 0.5,
    }
    for epoch in range(4):
        given = {"training": training, "epoch": epoch, **options}
        assert torch.equal(tensors(small, reduced=True, **given), tensors(small, **given))


def test_crops_are_not_the_same_where_something_is_gained(photographs):
    """Otherwise the two tests above would compare full decoding with itself."""
    found = tensors(photographs, reduced=True, image_size=16, training=False)
    full = tensors(photographs, image_size=16, training=False)
    assert [torch.equal(a, b) for a, b in zip(found, full, strict=True)] == [False, False, False, True]


def test_pictures_in_memory_have_no_file_to_reduce():
    part = load(DataConfig(), "val", 1)
    for training in (True, False):
        found, plain = (
            TensorDataset(part, DataConfig(image_size=4, crop="resized", **options), 0, timesteps=1, training=training)
            for options in ({"reduced": True}, {})
        )
        assert all(torch.equal(found[0, index][0], plain[0, index][0]) for index in range(10))


def test_a_single_file_is_prepared_as_in_evaluation(photographs):
    options = DataConfig(name="folder", image_size=64, reduced=True)
    paths = [photographs.root / file for file in photographs.files]
    expected = tensors(photographs, image_size=64, reduced=True, training=False)
    assert torch.equal(read_inputs(paths, options, photographs.about, 1), expected)


@pytest.mark.parametrize("kind", ["cut off", "no picture", "gone", "header"])
@pytest.mark.parametrize("training", [True, False])
def test_unreadable_files_fail_or_are_skipped_and_named(tmp_path, photographs, kind, training):
    for name in photographs.files:
        shutil.copy(photographs.root / name, tmp_path)
    file = tmp_path / "flower.jpg"
    content = file.read_bytes()
    if kind == "gone":
        file.unlink()
    else:
        lengths = {"cut off": len(content) // 2, "header": 100, "no picture": 0}
        file.write_bytes(content[: lengths[kind]] or b"some text")
    part = PictureFolder(tmp_path, photographs.files, [0, 1, 0, 1], ["a", "b"])
    dataset = [
        TensorDataset(
            part, folder_config(tmp_path, reduced=True, on_unreadable=policy), 0, timesteps=1, training=training
        )
        for policy in ("fail", "skip")
    ]
    reason = "does not exist" if kind == "gone" else r"cannot be read as a picture \(.*\): replace it"
    with pytest.raises(UnreadableError, match=rf"flower\.jpg {reason}") as raised:
        dataset[0][0, 1]
    assert "object at 0x" not in str(raised.value)
    tensor, label, unreadable = dataset[1][0, 1]
    assert (label, unreadable) == (0 if training else IGNORED, 1)
    if not training:
        assert torch.equal(tensor, dataset[1][0, 2][0])


def test_a_file_that_is_no_jpeg_is_decoded_whole_whatever_its_name(tmp_path):
    picture(3, (64, 48)).save(content := io.BytesIO(), "png")
    (tmp_path / "png.jpg").write_bytes(content.getvalue())
    part = PictureFolder(tmp_path, ["png.jpg"], [0], ["a"])
    given = {"training": False, "image_size": 4}
    assert torch.equal(tensors(part, reduced=True, **given), tensors(part, **given))
