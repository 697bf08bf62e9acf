"""From pictures to tensors: augmentation, normalisation, mixup."""

import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from conftest import shared_data
from helpers import folder_config, folder_of_pictures, picture
from trevsnn.data.config import DataConfig
from trevsnn.data.loading import TensorDataset, batches, make_loader
from trevsnn.data.pictures import in_memory
from trevsnn.data.pictures.folders import load_folder
from trevsnn.data.pictures.transforms import BatchMixup, picture_transform
from trevsnn.data.sampling import EpochSampler, seeded
from trevsnn.data.sets import load


def test_evaluation_pictures_are_normalised_and_nothing_else():
    pictures = load(DataConfig(), "val", 1)
    tensor, label, unreadable = TensorDataset(pictures, DataConfig(), 0, timesteps=1, training=False)[0, 5]
    expected = (torch.from_numpy(pictures.images[5] / 255) - pictures.mean[0]) / pictures.std[0]
    assert torch.allclose(tensor[0].double(), expected, atol=1e-6)
    assert (label, unreadable) == (pictures.labels_N[5], -1)


def test_augmentations_of_timm_are_at_work(tmp_path):
    folder_of_pictures(tmp_path, ("train", "val"))
    part = load_folder(folder_config(tmp_path), "train")
    seen = {}
    for name, options in {
        "none": {}, "policy": {"auto_augment": "rand-m9-mstd0.5-inc1"}, "jitter": {"color_jitter": 0.4},
        "erasing": {"erasing": 1.0}, "resized": {"crop": "resized", "crop_scale": 0.2}, "flip": {"flip": True},
        "rotation": {"rotation": 30.0}, "shear": {"shear": 30.0},
    }.items():  # fmt: skip
        dataset = TensorDataset(part, folder_config(tmp_path, **options), 0, timesteps=1, training=True)
        items = torch.stack([dataset[1, i][0] for i in range(10)])
        assert torch.equal(items, torch.stack([dataset[1, i][0] for i in range(10)]))
        assert items.shape == (10, 3, 8, 8)
        seen[name] = items
    changed = {name: int((items != seen["none"]).flatten(1).any(1).sum()) for name, items in seen.items()}
    assert changed["none"] == 0
    assert all(changed[name] >= 8 for name in ("jitter", "erasing", "resized", "rotation", "shear"))
    assert changed["policy"] >= 5
    assert 2 <= changed["flip"] <= 8


def test_the_policy_of_imagenet_runs_at_its_highest_magnitude():
    """Posterising to 0 bits, which Pillow refuses, among it."""
    about = in_memory.Pictures(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int64), ("a",))
    about.mean, about.std = (0.5,) * 3, (0.5,) * 3
    transform = picture_transform(DataConfig(image_size=8, auto_augment="rand-m10-mstd0.5-inc1"), about, training=True)
    for seed in range(400):
        with seeded(seed):
            assert bool(torch.isfinite(transform(picture(seed))).all())


def test_evaluation_takes_the_middle():
    about = in_memory.Pictures(np.zeros((1, 20, 30, 3), np.uint8), np.zeros(1, np.int64), ("a",))
    about.mean, about.std = (0.0,) * 3, (1.0,) * 3
    ramp = Image.fromarray(np.repeat(np.arange(30, dtype=np.uint8)[None, :, None], 20, 0).repeat(3, 2))
    tensor = picture_transform(DataConfig(image_size=10, crop_share=0.5), about, training=False)(ramp)
    assert torch.allclose(tensor[0, 0] * 255, torch.arange(10.0, 20.0))


def test_mixup_depends_on_seed_and_step_alone_and_mixes_labels():
    mix = BatchMixup(DataConfig(mixup=0.8, cutmix=1.0), classes=3, label_smoothing=0.1, seed=5)
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 1])
    before = x.clone()
    a, b, c = mix(x, y, 7, 0), mix(x, y, 7, 0), mix(x, y, 8, 0)
    assert torch.equal(x, before)
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[0], c[0])
    assert torch.allclose(a[1].sum(1), torch.ones(4))
    lam = (a[1][0, 0] - 0.1 / 3) / 0.9  # the first picture's own share; its partner is the last
    assert torch.allclose(a[1][0, 1], 0.1 / 3 + 0.9 * (1 - lam))


def test_cutmix_of_recordings_takes_one_box_out_of_all_frames():
    """And the share in the label is the share of the area."""
    mix = BatchMixup(DataConfig(cutmix=1.0), classes=2, label_smoothing=0.0, seed=5)
    x, y = torch.randn(2, 3, 2, 8, 8), torch.tensor([0, 1])
    for step in range(5):
        mixed, target = mix(x, y, step)
        taken = mixed[0] == x[1]
        assert torch.equal(mixed[0], torch.where(taken, x[1], x[0]))
        assert torch.equal(taken, taken[:1, :1].expand_as(taken))
        assert torch.allclose(target[0, 1], taken.float().mean())


def test_real_imagenet_pictures_are_read_and_augmented(tmp_path):
    with zipfile.ZipFile(shared_data("imagenet-sample.zip")) as file:
        file.extractall(tmp_path)
    root = tmp_path / "imagenet-sample"
    shutil.copytree(root / "val", root / "train")
    options = DataConfig(
        name="imagenet", root=str(root), image_size=224, crop="resized", crop_share=0.9655, flip=True, erasing=0.25,
        auto_augment="rand-m9-mstd0.5-inc1", workers=2,
    )  # fmt: skip
    for training in (True, False):
        part = load(options, "train" if training else "val", 1)
        loader = make_loader(
            TensorDataset(part, options, 0, timesteps=1, training=training), EpochSampler(100, 0, shuffle=training), 10,
            options, torch.device("cpu"),
        )  # fmt: skip
        found = [inputs for inputs, _, unreadable in batches(loader) if bool((unreadable == -1).all())]
        inputs = torch.cat(found)
        assert inputs.shape == (100, 3, 224, 224)
        assert abs(float(inputs.mean())) < 0.5
        assert 0.7 < float(inputs.std()) < 1.5


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, 6),
        ({"flip": True}, 0),
        ({"crop_padding": 1}, 0),
        ({"rotation": 9.0}, 0),
        ({"erasing": 0.5}, 0),
        ({"crop": "resized"}, 0),
    ],
)
def test_pictures_in_memory_are_made_once_where_nothing_is_drawn(options, kept):
    config = DataConfig(**options)
    part = load(config, "train", 1)
    dataset = TensorDataset(part, config, 0, timesteps=1, training=True)
    batch = next(iter(DataLoader(dataset, 6, sampler=[(0, index) for index in range(6)])))[0]
    assert len(dataset.made or ()) == kept
    if not kept:
        return
    batch.zero_()  # a user's own
    for index in range(6):
        again, label, unreadable = dataset[1, index]
        assert torch.equal(again, dataset.transform(part.read(index)))
        assert (label, unreadable) == (part.labels_N[index], -1)


def test_tensors_of_many_pictures_are_not_kept(monkeypatch):
    monkeypatch.setattr("trevsnn.data.loading.MADE", 360 * 8 * 8 * 4 - 1)
    dataset = TensorDataset(load(DataConfig(), "val", 1), DataConfig(), 0, timesteps=1, training=False)
    assert dataset[0, 3][0].shape == (1, 8, 8)
    assert dataset.made == {}
