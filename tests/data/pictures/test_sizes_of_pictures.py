"""Pictures that are wider or higher than the network's input, against plain calls of Pillow and torchvision."""

import shutil
from math import floor
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import functional as plain
from torchvision.transforms import v2

from trevsnn.data.config import DataConfig
from trevsnn.data.loading import TensorDataset, batches, make_loader
from trevsnn.data.pictures.cover import LONGEST_COVER, Cover, covering_size
from trevsnn.data.pictures.folders import PictureFolder
from trevsnn.data.sampling import EpochSampler, mix_seed, seeded

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"  # china.jpg and flower.jpg, 640 x 427
SIZES = [(96, 160), (61, 40), (33, 129), 64]
MEAN, STD = (torch.tensor(v)[:, None, None] for v in (PictureFolder.mean, PictureFolder.std))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> PictureFolder:
    """As they are, one turned upright, one grey, and one that is very wide."""
    folder = tmp_path_factory.mktemp("photographs")
    shutil.copy(PHOTOGRAPHS / "china.jpg", folder)
    with Image.open(PHOTOGRAPHS / "flower.jpg") as flower:
        flower.transpose(Image.Transpose.ROTATE_90).save(folder / "upright.jpg", quality=95)
        flower.convert("L").save(folder / "grey.png")
        flower.crop((0, 100, 640, 200)).save(folder / "wide.jpg", quality=95)
    return PictureFolder(folder, ["china.jpg", "upright.jpg", "grey.png", "wide.jpg"], [0, 1, 0, 1], ["a", "b"])


def items(part, size, *, training=False, **options):
    config = DataConfig(name="folder", image_size=size, **options)
    return TensorDataset(part, config, 3, timesteps=1, training=training)


def covered(image: Image.Image, size, share: float = 1.0) -> Image.Image:
    """Resized to cover and cropped in the middle, by Pillow alone."""
    height, width = (size, size) if isinstance(size, int) else size
    rows, columns = floor(height / share), floor(width / share)
    if image.width / image.height <= columns / rows:
        image = image.resize((columns, image.height * columns // image.width), Image.Resampling.BILINEAR)
    else:
        image = image.resize((image.width * rows // image.height, rows), Image.Resampling.BILINEAR)
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def normalised(image: Image.Image) -> torch.Tensor:
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - MEAN) / STD


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 300), st.integers(1, 300))
def test_one_side_is_met_and_the_other_covers(width, height, rows, columns):
    found = covering_size((width, height), (rows, columns))
    assert found[0] >= columns
    assert found[1] >= rows
    assert found[0] == columns or found[1] == rows
    larger = max(columns / width, rows / height)
    assert abs(found[0] - width * larger) < 1
    assert abs(found[1] - height * larger) < 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [1.0, 0.875])
def test_evaluation_covers_and_takes_the_middle(photographs, size, share):
    found = items(photographs, size, crop_share=share)
    for index in range(len(photographs)):
        expected = normalised(covered(photographs.read(index), size, share))
        assert torch.equal(found[0, index][0], expected)


@pytest.mark.parametrize("size", [(3001, 4), (4, 3001), (3000, 5)])
@pytest.mark.parametrize("shown", [8, (16, 4)])
def test_of_a_very_long_picture_the_middle_is_shown(tmp_path, size, shown):
    """As if all of it had been resized, whatever decodes it."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)).save(tmp_path / "long.png")
    part = PictureFolder(tmp_path, ["long.png"], [0], ["a"])
    expected = normalised(covered(part.read(0), shown))
    for reduced in (False, True):
        assert torch.allclose(
            items(part, shown, reduced=reduced)[0, 0][0], expected, atol=1.5 / 255 / 0.22
        )  # a grey level
    config = DataConfig(name="folder", image_size=shown, on_device=True)
    loader = make_loader(items(part, shown), EpochSampler(1, 0, shuffle=False), 1, config, torch.device("cpu"))
    ((found, *_),) = batches(loader)
    assert torch.allclose(found[0], expected, atol=1.5 / 255 / 0.22)


def test_a_picture_of_one_row_takes_no_gigabytes():
    """Whole, it would become 15 million columns of 224 pixels; its file has 200 bytes."""
    for size in ((65000, 1), (1, 65000)):
        found = Cover((224, 224))(Image.new("L", size)).size
        assert min(found) == 224
        assert max(found) <= 224 * (LONGEST_COVER + 1)


def test_a_square_is_what_torchvision_makes(photographs):
    for index in range(len(photographs)):
        expected = plain.center_crop(plain.resize(photographs.read(index), 73), [64, 64])
        assert torch.equal(items(photographs, 64, crop_share=0.875)[0, index][0], normalised(expected))


@pytest.mark.parametrize("size", SIZES)
def test_padded_crops_are_out_of_the_covering_picture(photographs, size):
    found = items(photographs, size, training=True, crop_padding=5)
    for index in range(len(photographs)):
        with seeded(mix_seed(3, 1, index)):
            image = covered(photographs.read(index), size)
            expected = v2.RandomCrop((image.height, image.width), padding=5)(image)
        assert torch.equal(found[1, index][0], normalised(expected))


@pytest.mark.parametrize("size", SIZES)
def test_random_crops_have_the_shape_of_the_input(photographs, size):
    """Their width to height is 3/4 to 4/3 of the input's, so that no object is squashed more than in a square."""
    height, width = (size, size) if isinstance(size, int) else size
    found = items(photographs, size, training=True, crop="resized")
    for index in range(len(photographs)):
        image = photographs.read(index)
        with seeded(mix_seed(3, 1, index)):
            ratio = (0.75 * width / height, 4 / 3 * width / height)
            top, left, rows, columns = RandomResizedCropAndInterpolation.get_params(image, (0.08, 1.0), ratio)
        expected = image.crop((left, top, left + columns, top + rows)).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        assert torch.equal(found[1, index][0], normalised(expected))


@pytest.mark.parametrize("size", [(24, 40), (41, 24)])
@pytest.mark.parametrize("options", [{}, {"crop": "resized"}, {"crop_padding": 3}])
def test_reduced_decoding_shows_the_same_region(photographs, size, options):
    for training in (True, False):
        pair = [items(photographs, size, training=training, reduced=reduced, **options) for reduced in (True, False)]
        for index in range(len(photographs)):
            one, other = (dataset[1, index][0] for dataset in pair)
            assert one.shape == (3, *size)
            assert float((one - other).abs().mul(STD * 255).mean()) < 3


@pytest.mark.parametrize(
    ("options", "training", "mean"),
    [
        ({}, False, 0.1), ({"crop_share": 0.9}, False, 0.1), ({"crop": "resized", "flip": True}, True, 0.1),
        ({"crop_padding": 6}, True, 0.1), ({"crop_padding": 6, "rotation": 20.0}, True, 2.0), ({"shear": 30.0}, True, 2.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [(48, 80), (75, 44)])
def test_the_device_makes_the_same_pictures(photographs, size, options, training, mean):
    if "rotation" in options or "shear" in options:
        pytest.importorskip("kornia")
    config = DataConfig(name="folder", image_size=size, on_device=True, **options)
    dataset = TensorDataset(photographs, config, 3, timesteps=1, training=training)
    sampler = EpochSampler(4, 0, shuffle=False)
    sampler.epoch = 1
    ((found, *_),) = batches(make_loader(dataset, sampler, 4, config, torch.device("cpu")))
    expected = torch.stack([items(photographs, size, training=training, **options)[1, index][0] for index in range(4)])
    assert found.shape == (4, 3, *size)
    assert float((found - expected).abs().mul(STD * 255).mean()) < mean


def test_rows_are_those_of_the_height(photographs):
    config = DataConfig(name="folder", image_size=(12, 20), rows=True)
    frames = TensorDataset(photographs, config, 0, timesteps=6, training=False)[0, 0][0]
    whole = items(photographs, (12, 20))[0, 0][0]
    assert frames.shape == (6, 3, 1, 20)
    assert torch.equal(frames[2, :, 0], whole[:, 4:6].mean(1))


def test_augmentations_run_at_any_size(photographs):
    options = {"auto_augment": "rand-m9-mstd0.5-inc1", "erasing": 1.0, "rotation": 9.0, "shear": 9.0, "flip": True}
    found = items(photographs, (31, 50), training=True, **options)
    assert all(found[1, index][0].shape == (3, 31, 50) for index in range(4))
    assert not torch.equal(found[1, 0][0], found[2, 0][0])
