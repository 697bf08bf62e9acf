"""Sets held in memory: parts, files, downloads, hashes."""

import functools
import gzip
import hashlib
import pickle
import re
import threading
import tracemalloc
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, FashionMNIST

from helpers import FASHION, folder_of_pictures, imitate_fashion_mnist, needs_debian, picture, write_idx
from trevsnn.data.config import DataConfig
from trevsnn.data.part import MissingDataError
from trevsnn.data.pictures import in_memory
from trevsnn.data.pictures.in_memory import find_idx, may_download, read_idx
from trevsnn.data.sets import load, splits
from trevsnn.errors import RunError


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
    names = [name for pair in in_memory.IDX_FILES.values() for name in pair]
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
        find_idx(FashionMNIST, str(tmp_path / "new"), download=True)
    with pytest.raises(RunError, match="digits has no test part"):
        load(DataConfig(), "test", 1)


IDX = gzip.compress(b"\0\0\x08\x01\0\0\0\x03abc", mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        b"plain",
        gzip.compress(b"\0\0\x0d\x01\0\0\0\x01abcd"),
        gzip.compress(b"\0\0\x08\x01\0\0\0\x09abc"),
        gzip.compress(b"\0\0\x08\x01\0\0\0\x02abc"),
        IDX + gzip.compress(b"d"),
        IDX[:-4],
        IDX[:12] + b"\xff" + IDX[13:],
        gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12 + b"abc"),
        b"",
    ],
    ids=[
        "not compressed",
        "another type",
        "too short",
        "too long",
        "two members",
        "no end",
        "damaged",
        "huge",
        "empty",
    ],
)
def test_a_damaged_idx_file_is_said(tmp_path, content):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(RunError, match=r"x.gz is damaged \(.*\): fetch it again"):
        read_idx(tmp_path / "x.gz")


def test_no_more_is_unpacked_than_the_header_says(tmp_path):
    """A file of 100 kB that would unpack to 100 MB, whose header says 8 bytes, and one that says 500 MB of nothing."""
    (tmp_path / "whole.gz").write_bytes(IDX)
    assert read_idx(tmp_path / "whole.gz").tolist() == [*b"abc"]
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x08" + bytes(10**8)))
    (tmp_path / "claim.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\x20\0\0\0" + bytes(100)))
    tracemalloc.start()
    for name, message in (
        ("bomb", "says 8 bytes, and it has more"),
        ("claim", "says 536,870,912 bytes, and it has fewer"),
    ):
        with pytest.raises(RunError, match=message):
            read_idx(tmp_path / f"{name}.gz")
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["cifar-10", "cifar-100", "mnist", "fashion-mnist"])
def test_nothing_is_downloaded_into_a_folder_of_other_things(tmp_path, name):
    (tmp_path / "notes.txt").write_text("x")
    where = re.escape(str(tmp_path))
    with pytest.raises(
        MissingDataError, match=rf"is not in {where}( or {where}/\S+/raw)?: .*set data.root to a folder with"
    ):
        load(DataConfig(name=name, root=str(tmp_path)), "train", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert may_download(None, "x")
    assert may_download(str(tmp_path / "new"), "x")
    (tmp_path / "MNIST").mkdir()
    assert may_download(str(tmp_path), "MNIST")
    assert not may_download(str(tmp_path), "FashionMNIST")


def test_labels_beyond_the_classes_are_said(tmp_path):
    imitate_fashion_mnist(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.full(6000, 10))
    with pytest.raises(RunError, match="has a label 10, and there are 10 classes"):
        load(DataConfig(name="fashion-mnist", root=str(tmp_path)), "test", 1)


def test_pictures_and_labels_of_different_sets_are_said(tmp_path):
    imitate_fashion_mnist(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(7))
    with pytest.raises(RunError, match="do not belong together"):
        load(DataConfig(name="fashion-mnist", root=str(tmp_path)), "train", 1)


def test_cifar_from_folders_of_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(in_memory, "VALIDATION", 10)
    folder_of_pictures(tmp_path, ("train", "test"))
    options = DataConfig(name="cifar-10", root=str(tmp_path), image_size=10)
    parts = {split: load(options, split, 1) for split in ("train", "val", "test")}
    assert [len(p) for p in parts.values()] == [30, 10, 40]
    assert np.array_equal(parts["test"].images[3], np.asarray(picture(3)))
    assert parts["test"].mean == pytest.approx((parts["train"].images / 255).mean((0, 1, 2)).tolist(), rel=1e-5)
    assert parts["val"].std == pytest.approx((parts["train"].images / 255).std((0, 1, 2)).tolist(), rel=1e-5)
    picture(0, (9, 9)).save(tmp_path / "test" / "cat" / "000.png")
    with pytest.raises(RunError, match=r"test/cat/000\.png and .*test/cat/001\.png differ in size, 9 x 9 and 10 x 12"):
        load(options, "test", 1)


def test_cifar_of_torchvision_is_opened_only_with_its_hashes(tmp_path, monkeypatch):
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    dice = np.random.default_rng(0)
    data = dice.integers(0, 256, (20, 3072), np.uint8)
    content = pickle.dumps({"data": data, "labels": [i % 10 for i in range(20)]})
    names = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    for name in ("train", "test"):
        (folder / name).write_bytes(content)
    (folder / "batches.meta").write_bytes(names)
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [["train", md5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test", md5]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": hashlib.md5(names).hexdigest()}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    monkeypatch.setattr(in_memory, "VALIDATION", 10)
    options = DataConfig(name="cifar-10", root=str(tmp_path), image_size=32, download=False)
    part = load(options, "test", 1)
    assert part.classes[3] == "class 3"
    assert np.array_equal(part.images[5], data[5].reshape(3, 32, 32).transpose(1, 2, 0))
    (folder / "test").write_bytes(content[:-1] + b"x")
    with pytest.raises(RunError, match=r"cifar-10 is not in .*\(Dataset not found or corrupted"):
        load(options, "test", 1)


def test_the_digits_are_the_scans_of_scikit_learn():
    train_part, held_out = load(DataConfig(), "train", 1), load(DataConfig(), "val", 1)
    both = np.concatenate([train_part.images, held_out.images])
    grey = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(p.tobytes() for p in both) == sorted(p.tobytes() for p in grey)
    assert train_part.mean == pytest.approx((train_part.images.mean() / 255,))
    assert held_out.digest() == "a2fc2790f951761efa3de96d98e5fd3fec1bfbc4ef550eb2193c8e5117cf4c96"
    assert train_part.digest() == "7531db42dd3ff2d2862222a0b92a7132eab114482b8de0e522adc4d755f9686c"
