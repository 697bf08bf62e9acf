"""Pictures with one channel, of 8 and of 16 bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import folder_config
from trevsnn.data.config import DataConfig
from trevsnn.data.files import read_inputs
from trevsnn.data.pictures.file import read_grey, read_rgb
from trevsnn.data.sets import load, transform_of

LEVELS_HW = (np.arange(8 * 8, dtype=np.uint32).reshape(8, 8) * 1040).astype(np.uint16)  # 0 to 65520


def written(path: Path, picture: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_keep_their_levels(tmp_path, ending):
    path = written(tmp_path / f"deep.{ending}", Image.fromarray(LEVELS_HW))
    grey = read_grey(path)
    assert grey.mode == "F"
    assert np.array_equal(np.asarray(grey), LEVELS_HW.astype(np.float32) / np.float32(65535))
    rgb = np.asarray(read_rgb(path))
    nearest = np.array([[round(int(level) / 257) for level in row] for row in LEVELS_HW])
    assert all(np.array_equal(rgb[:, :, channel], nearest) for channel in range(3))


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGB", "RGBA", "P"])
def test_grey_in_any_mode_is_its_own_value(tmp_path, mode):
    plain = Image.fromarray((LEVELS_HW >> 8).astype(np.uint8))
    path = written(tmp_path / "grey.png", plain.convert(mode))
    expected = plain.convert("1").convert("L") if mode == "1" else plain
    assert read_grey(path).mode == "L"
    assert np.array_equal(np.asarray(read_grey(path)), np.asarray(expected))


def test_a_grey_folder_is_normalised_by_the_luma_of_imagenet(tmp_path):
    """Training, evaluation and prediction see the same numbers, all 65,536 levels apart."""
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            written(tmp_path / part / name / "deep.png", Image.fromarray(LEVELS_HW))
    for reduced in (False, True):
        config = folder_config(tmp_path, grey=True, reduced=reduced)
        part = load(config, "val", 1)
        assert part.about.channels == 1
        assert part.mean == pytest.approx((0.458971,), abs=1e-6)
        assert part.std == pytest.approx((0.225609,), abs=1e-6)
        tensor = transform_of(config, part.about, 1, training=False)(part.open(0) if reduced else part.read(0))
        expected = (torch.from_numpy(LEVELS_HW.astype(np.float64)) / 65535 - 0.458971) / 0.225609
        assert torch.allclose(tensor[0].double(), expected, atol=1e-5)
        one = read_inputs([tmp_path / "val" / "cat" / "deep.png"], config, part.about, 1)
        assert torch.equal(one[0], tensor)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"name": "digits"}, "data.grey is for pictures in folders, not for digits"),
        ({"name": "folder", "on_device": True}, "data.on_device decodes pictures to RGB"),
        ({"name": "folder", "color_jitter": 0.1}, "data.color_jitter changes colours, but data.grey asks for none"),
    ],
)
def test_what_grey_excludes_is_refused(options, why):
    with pytest.raises(ValueError, match=why):
        DataConfig(grey=True, **options)
