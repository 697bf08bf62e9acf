"""Picture data sets: splits, files, downloads, augmentation."""

import functools
import gzip
import hashlib
import random
import threading
import tracemalloc
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
import yaml
from torchvision.datasets import FashionMNIST

from helpers import FASHION, imitate_fashion_mnist, needs_debian, write_idx
from trevsnn.data.config import DataConfig
from trevsnn.data.events.sets import SENSORS
from trevsnn.data.loading import TensorDataset
from trevsnn.data.pictures import in_memory as small
from trevsnn.data.pictures.in_memory import find_idx, read_idx
from trevsnn.data.sampling import EpochSampler, mix_seed
from trevsnn.data.sets import load, splits
from trevsnn.errors import RunError
from trevsnn.run.config import recipe_config, recipe_names, recipe_yaml


@pytest.mark.parametrize("inside", ["", "FashionMNIST/raw"])
def test_fashion_mnist_from_a_folder(tmp_path, inside):
    pictures = imitate_fashion_mnist(tmp_path / inside)
    config = DataConfig(name="fashion-mnist", root=str(tmp_path), download=False)
    parts = {split: load(config, split, 1) for split in splits(config)}
    assert [len(part.labels_N) for part in parts.values()] == [1000, 5000, 6000]
    cut = {p.tobytes() for split in ("train", "val") for p in parts[split].images}
    assert cut == {p.astype(np.uint8).tobytes() for p in pictures}  # disjoint and complete
    assert np.bincount(parts["val"].labels_N).tolist() == [500] * 10
    assert np.array_equal(parts["test"].images, pictures)
    assert parts["test"].mean == parts["train"].mean == pytest.approx((parts["train"].images.mean() / 255,))
    assert parts["test"].classes[9] == "Ankle boot"


def test_an_item_costs_the_same_in_a_large_set():
    part = load(DataConfig(), "train", 1)
    dataset = TensorDataset(part, DataConfig(), 0, training=True)
    item = dataset[0, 5][0]
    part.labels_N = np.zeros(2_000_000, np.int64)
    tracemalloc.start()
    try:
        assert torch.equal(dataset[0, 5][0], item)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1e6  # bytes; a list of the items alone would be 16 times that


@needs_debian
def test_fashion_mnist_of_debian_has_its_fixed_splits():
    parts = {split: load(FASHION, split, 1) for split in splits(FASHION)}
    assert [len(part.labels_N) for part in parts.values()] == [55000, 5000, 10000]
    assert {split: part.digest()[:16] for split, part in parts.items()} == {
        "train": "496f595a98a91117", "val": "8059fdb48c352773", "test": "9a494dc49efeb996",
    }  # fmt: skip


class Mirror(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.mark.parametrize("intact", [True, False])
def test_fashion_mnist_is_downloaded_and_its_hashes_checked(tmp_path, monkeypatch, intact):
    """torchvision's own download, from a mirror on this machine."""
    imitate_fashion_mnist(tmp_path / "mirror")
    names = [name for pair in small.IDX_FILES.values() for name in pair]
    sums = [hashlib.md5((tmp_path / "mirror" / name).read_bytes()).hexdigest() for name in names]
    resources = list(zip(names, sums if intact else reversed(sums), strict=True))
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Mirror, directory=tmp_path / "mirror")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(FashionMNIST, "resources", resources)
        if intact:
            folder = find_idx(FashionMNIST, str(tmp_path / "root"), download=True)
            assert all((folder / name).read_bytes() == (tmp_path / "mirror" / name).read_bytes() for name in names)
            assert find_idx(FashionMNIST, str(tmp_path / "root"), download=False) == folder
        else:
            with pytest.raises(RunError, match=r"the download to .* failed \(Error downloading train-images"):
                find_idx(FashionMNIST, str(tmp_path / "root"), download=True)
        server.shutdown()


def test_missing_files_are_said(tmp_path, monkeypatch):
    with pytest.raises(RunError, match=r"is not in .* \(data.download is false\): install Debian's package"):
        find_idx(FashionMNIST, str(tmp_path), download=False)
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(RunError, match=r"the download to .* failed"):
        find_idx(FashionMNIST, str(tmp_path), download=True)
    with pytest.raises(RunError, match="digits has no test part"):
        load(DataConfig(), "test", 1)


@pytest.mark.parametrize(
    "content",
    [b"plain", gzip.compress(b"\0\0\x0d\x01\0\0\0\x01abcd"), gzip.compress(b"\0\0\x08\x01\0\0\0\x09abc")],
    ids=["not compressed", "another type", "too short"],  # compressed bytes carry the time
)
def test_a_damaged_idx_file_is_said(tmp_path, content):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(RunError, match=r"x.gz is damaged \(.*\): fetch it again"):
        read_idx(tmp_path / "x.gz")


def test_pictures_and_labels_of_different_sets_are_said(tmp_path):
    imitate_fashion_mnist(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(7))
    with pytest.raises(RunError, match="do not belong together"):
        load(DataConfig(name="fashion-mnist", root=str(tmp_path)), "train", 1)


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    config = DataConfig(crop_padding=2, rotation=20.0, erasing=0.5, flip=True)
    pictures = load(config, "train", 1)
    dataset = TensorDataset(pictures, config, seed=3, training=True)
    first = [dataset[1, i][0] for i in range(20)]
    torch.manual_seed(99)
    state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    again = [dataset[1, i][0] for i in reversed(range(20))][::-1]
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert random.getstate() == python_state
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(dataset[2, i][0], first[i]) for i in range(20))
    other = TensorDataset(pictures, config, seed=4, training=True)
    assert not any(torch.equal(other[1, i][0], first[i]) for i in range(20))


def test_evaluation_pictures_are_normalised_and_nothing_else():
    pictures = load(DataConfig(), "val", 1)
    tensor, label, unreadable = TensorDataset(pictures, DataConfig(), 0, training=False)[0, 5]
    expected = (torch.from_numpy(pictures.images[5] / 255) - pictures.mean[0]) / pictures.std[0]
    assert torch.allclose(tensor[0].double(), expected, atol=1e-6)
    assert (label, unreadable) == (pictures.labels_N[5], -1)


def test_the_sampler_s_order_can_be_entered_anywhere():
    sampler = EpochSampler(50, seed=1, shuffle=True)
    sampler.epoch = 4
    whole = list(sampler)
    assert sorted(whole) == [(4, i) for i in range(50)]
    sampler.start = 20
    assert list(sampler) == whole[20:]
    assert len(sampler) == 30
    sampler.epoch, sampler.start = 5, 0
    assert [i for _, i in sampler] != [i for _, i in whole]
    assert len({mix_seed(a, b) for a in range(40) for b in range(40)}) == 1600


def test_processes_share_an_epoch_without_overlap():
    """Four processes see in each step what one sees, and what is left out at the end changes with the epoch."""
    alone = EpochSampler(48, seed=1, shuffle=True, of=50)
    shared = [EpochSampler(48, seed=1, shuffle=True, rank=r, world=4, of=50) for r in range(4)]
    for sampler in (alone, *shared):
        sampler.epoch, sampler.start = 2, 16
    parts = [list(sampler) for sampler in shared]
    assert [len(part) for part in parts] == [len(s) for s in shared] == [8] * 4
    for step in range(2):
        together = {key for part in parts for key in part[4 * step : 4 * step + 4]}
        assert together == set(list(alone)[16 * step : 16 * step + 16])
    left_out = []
    for epoch in range(2):
        alone.epoch, alone.start = epoch, 0
        left_out.append(set(range(50)) - {i for _, i in alone})
    assert [len(s) for s in left_out] == [2, 2]
    assert left_out[0] != left_out[1]
    uneven = [EpochSampler(10, 0, shuffle=False, rank=r, world=4) for r in range(4)]
    assert [len(s) for s in uneven] == [3, 3, 2, 2]
    assert sorted(i for s in uneven for _, i in s) == list(range(10))


def test_every_recipe_is_a_config_whose_model_fits_its_data():
    assert recipe_names() == [
        "cifar-10", "cifar10-dvs", "digits", "dvs128-gesture", "fashion-mnist", "imagenet-small", "imagenet-tiny",
        "n-mnist", "tiny-imagenet",
    ]  # fmt: skip
    classes = {"imagenet": 1000, "dvs128-gesture": 11, "tiny-imagenet": 20}
    for name in recipe_names():
        config = recipe_config(name)
        assert name.startswith(config.data.name)
        assert config.model.num_classes == classes.get(config.data.name, 10)
        event = config.data.name in SENSORS
        grey = config.data.name in ("digits", "fashion-mnist")
        assert (config.model.input, config.model.in_chans) == (("event", 2) if event else ("image", 1 if grey else 3))
    tiny, small_ = (yaml.safe_load(recipe_yaml(f"imagenet-{size}")) for size in ("tiny", "small"))
    assert {key: value for key, value in tiny.items() if key != "model"} == {
        key: value for key, value in small_.items() if key != "model"
    }
    assert small_["model"] == {**tiny["model"], "channels": [96, 192, 384, 512], "kernel_size": 5}
