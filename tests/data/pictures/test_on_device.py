"""Pictures decoded and augmented in batches on the device, beside the same pictures decoded and augmented one by one."""

import io
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image

from helpers import folder_of_pictures, metrics, picture
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.loading import IGNORED, TensorDataset, batches, make_loader
from trevsnn.data.pictures.folders import PictureFolder
from trevsnn.data.pictures.in_memory import Pictures
from trevsnn.data.sampling import EpochSampler
from trevsnn.data.sets import load
from trevsnn.errors import UnreadableError

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"  # china.jpg and flower.jpg, 640 x 427
FORMATS = {
    "grey.jpg": "L",
    "cmyk.jpg": "CMYK",
    "palette.png": "P",
    "clear.png": "RGBA",
    "jpeg.jpg": "RGB",
    "rgb.bmp": "RGB",
}
ALL = {
    "crop": "pad",
    "crop_padding": 3,
    "flip": True,
    "rotation": 20.0,
    "shear": 10.0,
    "color_jitter": 0.3,
    "erasing": 0.5,
}


@pytest.fixture(scope="module")
def photographs() -> PictureFolder:
    return PictureFolder(PHOTOGRAPHS, ["china.jpg", "flower.jpg"] * 4, [0, 1] * 4, ["a", "b"])


def smooth(size: tuple[int, int], mode: str, shift: int = 0) -> Image.Image:
    """A picture that survives a JPEG nearly unchanged."""
    x, y = np.meshgrid(np.linspace(0, 6, size[0]) + shift, np.linspace(0, 5, size[1]))
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], 2)
    return Image.fromarray((127 + 90 * waves).astype(np.uint8)).convert(mode)


def loaded(part, config, device, *, training=True, epoch=1, batch=None, order=None, seed=3):
    """All batches of a part, put together on the CPU."""
    dataset = TensorDataset(part, config, seed, timesteps=1, training=training)
    sampler = EpochSampler(len(part), 0, shuffle=False)
    sampler.epoch = epoch
    found = list(batches(make_loader(dataset, sampler, batch or len(part), config, device)))
    assert all(inputs.device.type == labels.device.type == device.type for inputs, labels, _ in found)
    assert all(unreadable.device.type == "cpu" for _, _, unreadable in found)
    return tuple(torch.cat([part.cpu() for part in parts]) for parts in zip(*found, strict=True))


def one_by_one(part, config, *, training=True, epoch=1, seed=3):
    dataset = TensorDataset(part, config, seed, timesteps=1, training=training)
    return torch.stack([dataset[epoch, index][0] for index in range(len(part))])


def grey_levels(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Differences of pictures normalised as ImageNet's, in grey levels of 255."""
    return (one - other).abs() * torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255


@pytest.mark.parametrize(
    ("options", "mean", "most"),
    [
        ({}, 0.1, 2.5),  # decoders and resizing differ by a grey level
        ({"flip": True}, 0.1, 2.5),
        ({"crop": "pad", "crop_padding": 6, "flip": True}, 0.1, 2.5),
        ({"color_jitter": 0.4}, 2.0, 8.0),  # Pillow rounds down after each change, and kornia not at all
        ({"rotation": 30.0}, 1.5, None),  # at the border half of a pixel is zeros
        ({"shear": 30.0}, 1.5, None),
        (
            {"rotation": 15.0, "shear": 10.0},
            4.0,
            None,
        ),  # one interpolation in place of two, which cut off corners twice
    ],
)
def test_training_pictures_are_those_of_pillow_by_the_same_random_numbers(photographs, device, options, mean, most):
    config = DataConfig(name="folder", image_size=112, on_device=True, **{"crop": "resized", **options})
    inputs, labels, unreadable = loaded(photographs, config, device)
    found = grey_levels(inputs, one_by_one(photographs, config))
    nvjpeg = 2.0 if device.type == "cuda" else 0.0
    assert float(found.mean()) < mean + nvjpeg
    assert most is None or float(found.max()) < most + 10 * nvjpeg
    assert labels.tolist() == [0, 1] * 4
    assert unreadable.tolist() == [-1] * 8


@pytest.mark.parametrize(("size", "share"), [(64, 1.0), (112, 0.875), (224, 0.9655)])
def test_evaluation_pictures_are_those_of_pillow_to_a_grey_level_or_two(photographs, device, size, share):
    config = DataConfig(name="folder", image_size=size, crop_share=share, on_device=True, **{**ALL, "crop": "resized"})
    found = grey_levels(
        loaded(photographs, config, device, training=False)[0], one_by_one(photographs, config, training=False)
    )
    bound = (0.05, 1.01) if device.type == "cpu" else (2.0, 24.0)
    assert float(found.mean()) < bound[0]
    assert float(found.max()) < bound[1]


def test_every_format_and_size_in_one_batch(tmp_path, device):
    for number, (name, mode) in enumerate(FORMATS.items()):
        smooth((60 + 7 * number, 50 - 3 * number), mode, number).save(tmp_path / name, quality=95)
    smooth((50, 50), "RGB").save(content := io.BytesIO(), "png")
    (tmp_path / "png.jpg").write_bytes(content.getvalue())
    part = PictureFolder(tmp_path, [*FORMATS, "png.jpg"], [0] * 7, ["a"])
    for options in ({"crop": "resized"}, {}):
        config = DataConfig(name="folder", image_size=24, on_device=True, **options)
        for training in (True, False):
            found = grey_levels(
                loaded(part, config, device, training=training)[0], one_by_one(part, config, training=training)
            )
            assert float(found.max()) < (2.5 if device.type == "cpu" else 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_in_memory(device, channels):
    """Without rotation, shear and colours bit for bit; saturation leaves a grey picture alone."""
    images = np.stack([np.asarray(smooth((16, 16), "L" if channels == 1 else "RGB", n)) for n in range(10)])
    part = Pictures(images, np.arange(10) % 2, ("a", "b"))
    part.mean, part.std = (0.5,) * channels, (0.25,) * channels
    exact = DataConfig(image_size=16, on_device=True, crop_padding=2, flip=True)
    for training in (True, False):
        inputs, labels, _ = loaded(part, exact, device, training=training)
        expected = one_by_one(part, exact, training=training)
        assert torch.allclose(inputs, expected, atol=1e-6, rtol=0)
        assert labels.tolist() == [0, 1] * 5
    jitter = DataConfig(image_size=16, on_device=True, color_jitter=0.3)
    assert float((loaded(part, jitter, device)[0] - one_by_one(part, jitter)).abs().mean()) * 0.25 * 255 < 2
    smaller = DataConfig(image_size=12, on_device=True)
    assert float((loaded(part, smaller, device)[0] - one_by_one(part, smaller)).abs().max()) * 0.25 * 255 < 2


def test_erasing_puts_noise_into_rectangles_of_a_share_of_the_items(device):
    part = Pictures(np.zeros((300, 24, 24, 3), np.uint8), np.zeros(300, np.int64), ("a",))
    part.mean, part.std = (0.5,) * 3, (0.5,) * 3
    config = DataConfig(image_size=24, on_device=True, erasing=0.25)
    inputs = loaded(part, config, device)[0]
    assert torch.equal(inputs, loaded(part, config, device, batch=20)[0])  # noise depends on the item alone
    assert not torch.equal(inputs, loaded(part, config, device, epoch=2)[0])
    changed = inputs != -1
    erased = changed.flatten(1).any(1)
    assert 0.18 < float(erased.float().mean()) < 0.32
    shares = []
    for item in changed[erased]:
        rows, columns = item[0].any(1), item[0].any(0)
        assert torch.equal(item, (rows[:, None] & columns).expand(3, 24, 24))
        assert all(np.diff(np.flatnonzero(side.numpy())).max(initial=1) == 1 for side in (rows, columns))
        shares.append(float(item.float().mean()))
    assert min(shares) > 0.01
    assert 0.25 < max(shares) < 0.4
    noise = inputs[changed]
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05


def test_random_numbers_depend_on_seed_epoch_and_item_alone(photographs, device):
    config = DataConfig(name="folder", image_size=32, on_device=True, **ALL)
    first = loaded(photographs, config, device)[0]
    torch.manual_seed(99)
    state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    cuda_state = torch.cuda.get_rng_state() if device.type == "cuda" else None
    again = loaded(photographs, config, device)[0]
    assert torch.equal(again, first)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state
    assert cuda_state is None or torch.equal(torch.cuda.get_rng_state(), cuda_state)
    assert torch.allclose(loaded(photographs, config, device, batch=2)[0], first, atol=1e-4)
    for other in ({"epoch": 2}, {"seed": 4}):
        changed = (loaded(photographs, config, device, **other)[0] != first).flatten(1).any(1)
        assert bool(changed.all())
    config.workers = 2
    assert torch.equal(loaded(photographs, config, device)[0], first)


def damaged(folder: Path, kind: str) -> PictureFolder:
    """Three JPEGs, of which the second cannot be read."""
    for number in range(3):
        smooth((64, 48), "RGB", number).save(folder / f"{number}.jpg", quality=90)
    file = folder / "1.jpg"
    content = file.read_bytes()
    if kind == "gone":
        file.unlink()
    elif kind == "cut off":
        file.write_bytes(content[: len(content) // 2])
    elif kind == "no picture":
        file.write_bytes(b"some text")
    else:  # Huffman tables that nobody can use, in a file that begins and ends as it should: only decoding finds out
        at = content.index(b"\xff\xc4") + 5
        file.write_bytes(content[:at] + b"\xff" * 16 + content[at + 16 :])
    return PictureFolder(folder, [f"{number}.jpg" for number in range(3)], [0, 1, 0], ["a", "b"])


@pytest.mark.parametrize(("kind", "workers"), [("gone", 0), ("cut off", 1), ("no picture", 0), ("tables", 0)])
def test_unreadable_files_fail_or_are_skipped_and_named(tmp_path, device, kind, workers):
    part = damaged(tmp_path, kind)
    config = DataConfig(name="folder", image_size=16, on_device=True, crop="resized", workers=workers)
    reason = "does not exist" if kind == "gone" else r"cannot be read as a picture \(.*\): replace it, or remove it\."
    for training in (True, False):
        with pytest.raises(UnreadableError, match=rf"^\S+1\.jpg {reason}"):
            loaded(part, config, device, training=training)
    config.on_unreadable = "skip"
    inputs, labels, unreadable = loaded(part, config, device, training=False)
    assert (labels.tolist(), unreadable.tolist()) == ([0, IGNORED, 0], [-1, 1, -1])
    assert torch.allclose(inputs[1], inputs[2], atol=0.01 if device.type == "cpu" else 0.2)
    inputs, labels, unreadable = loaded(part, config, device)
    assert (labels.tolist(), unreadable.tolist()) == ([0, 0, 0], [-1, 1, -1])
    expected = one_by_one(part, config)
    assert float(grey_levels(inputs, expected).max()) < (2.5 if device.type == "cpu" else 10)


def test_the_transform_of_tensors_is_left_as_it_is(photographs):
    config = DataConfig(name="folder", image_size=32, on_device=True)
    plain = DataConfig(name="folder", image_size=32)
    assert torch.equal(one_by_one(photographs, config, training=False), one_by_one(photographs, plain, training=False))


def test_kornia_is_needed_where_pictures_are_turned_or_changed_in_colour_and_named(tmp_path, monkeypatch, capsys):
    for name in ("kornia.enhance", "kornia.geometry.transform"):
        monkeypatch.setitem(sys.modules, name, None)
    options = ["train", "--recipe", "digits", "--accelerator", "cpu", "--data.on_device", "true"]
    run = tmp_path / "run"
    assert main([*options, "--data.rotation", "5", "--run", str(run)]) == 2
    assert capsys.readouterr().err.endswith("data.on_device augments by kornia: pip install 'trevsnn[device]'.\n")
    assert not run.exists()
    part = load(DataConfig(), "val", 1)
    loaded(part, DataConfig(on_device=True, flip=True), torch.device("cpu"))
    loaded(part, DataConfig(on_device=True, rotation=5.0), torch.device("cpu"), training=False)


def test_a_run_skips_counts_and_evaluates_as_without(tmp_path, capsys):
    folder_of_pictures(tmp_path / "data", ("train", "val"))
    for number in range(20):  # some of them JPEGs
        picture(number).save(tmp_path / "data" / "train" / "dog" / f"{number:03}.jpg")
    (tmp_path / "data" / "train" / "cat" / "005.png").write_bytes(b"some text")
    shutil.copy(damaged_jpeg(tmp_path), tmp_path / "data" / "train" / "dog" / "000.jpg")
    options = [
        "train", "--data.name", "folder", "--data.root", str(tmp_path / "data"), "--model.channels", "[4,8]",
        "--model.num_classes", "2", "--model.in_chans", "3", "--model.timesteps", "1", "--batch_size", "6",
        "--epochs", "2", "--accelerator", "cpu", "--data.on_device", "true", "--data.rotation", "10", "--data.mixup", "0.5",
    ]  # fmt: skip
    assert main([*options, "--run", str(tmp_path / "fails")]) == 1
    assert "cannot be read as a picture" in (error := capsys.readouterr().err)
    assert error.count("\n") == 1
    run = tmp_path / "run"
    assert main([*options, "--run", str(run), "--data.on_unreadable", "skip"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "cat/005.png: it cannot be read" in printed
    assert "dog/000.jpg: it cannot be read" in printed
    assert [row["unreadable"] for row in metrics(run)] == ["2", "2"]


def damaged_jpeg(folder: Path) -> Path:
    (folder / "damaged").mkdir()
    damaged(folder / "damaged", "tables")
    return folder / "damaged" / "1.jpg"
