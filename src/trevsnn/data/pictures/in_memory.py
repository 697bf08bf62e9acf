"""Picture sets that are held in memory as arrays: digits, MNIST, Fashion-MNIST, CIFAR."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, FashionMNIST

from trevsnn.data.config import DataConfig, Split
from trevsnn.data.listing import find_parts, list_classes
from trevsnn.data.part import CACHE, MissingDataError, Part
from trevsnn.data.pictures.file import read_rgb
from trevsnn.data.pictures.folders import list_pictures
from trevsnn.data.splitting import stratified_split
from trevsnn.errors import RunError

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]  # pictures and labels

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
IDX_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
VALIDATION = 5000  # pictures held out of the training set; of digits, a fifth


class Pictures(Part):
    """Pictures in memory.

    Args:
        images: uint8, grey (N, H, W) or RGB (N, H, W, 3).
        labels_N: class indices.
        classes: their names.
    """

    def __init__(self, images: NDArray[np.uint8], labels_N: NDArray[np.int64], classes: tuple[str, ...]) -> None:
        self.images, self.labels_N, self.classes = images, labels_N, classes
        self.channels = 1 if images.ndim == 3 else 3

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.images[index])

    def name(self, index: int) -> str:
        return f"picture {index}"

    def digest(self) -> str:
        """SHA-256 of pixels and labels."""
        return hashlib.sha256(self.images.tobytes() + self.labels_N.tobytes()).hexdigest()


def load_in_memory(config: DataConfig, split: Split) -> Pictures:
    """Read one part of a set into memory, with mean and standard deviation of the training part.

    Digits (1,797 scans of 8 x 8 pixels of the UCI test set, which scikit-learn ships) have "train", and as "val" a
    stratified fifth. The other sets have their own "test", and as "val" a stratified 5,000 of their training pictures.

    Raises:
        RunError: there is no such part, or files are missing or damaged.
    """
    if config.name == "digits" and split == "test":
        raise RunError("digits has no test part: evaluate on 'val', the fifth held out of training.")
    classes, read = _find_set(config)
    images, labels = read("train")
    train, val = stratified_split(labels, 0.2 if config.name == "digits" else VALIDATION)
    pixels_NPC = images[train].reshape(len(train), -1, 1 if images.ndim == 3 else 3) / np.float32(255)
    mean, std = pixels_NPC.mean((0, 1), dtype=np.float64), pixels_NPC.std((0, 1), dtype=np.float64)
    if split == "test":
        part = Pictures(*read("test"), classes)
    else:
        indices = val if split == "val" else train
        part = Pictures(images[indices], labels[indices], classes)
    part.mean, part.std = tuple(mean.tolist()), tuple(std.tolist())
    return part


def _digits() -> Arrays:
    from sklearn.datasets import load_digits  # it takes more than a second to load

    grey, labels = load_digits(return_X_y=True)
    images = np.round(np.asarray(grey).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return images, np.asarray(labels, np.int64)


def _find_set(config: DataConfig) -> tuple[tuple[str, ...], Callable[[str], Arrays]]:
    """The classes of a set, and the function that reads its "train" or "test" pictures."""
    if config.name == "digits":
        return tuple("0123456789"), lambda split: _digits()
    if config.name in ("mnist", "fashion-mnist"):
        kind = MNIST if config.name == "mnist" else FashionMNIST
        folder = find_idx(kind, config.root, config.download)
        return tuple(kind.classes), lambda split: _read_idx_pair(folder, split)
    if config.root is not None and "test" in find_parts(Path(config.root)):
        return _read_folder(config, Path(config.root))
    return _read_cifar(CIFAR10 if config.name == "cifar-10" else CIFAR100, config)


def _read_idx_pair(folder: Path, split: str) -> Arrays:
    images, labels = (read_idx(folder / name) for name in IDX_FILES[split])
    if images.ndim != 3 or len(images) != len(labels):
        raise RunError(f"{folder}: pictures {images.shape} and labels {labels.shape} do not belong together.")
    return images, labels.astype(np.int64)


def _read_folder(config: DataConfig, root: Path) -> tuple[tuple[str, ...], Callable[[str], Arrays]]:
    """A set as folders of pictures, train/CLASS and test/CLASS, all of one size."""
    folders = find_parts(root)
    classes = list_classes(folders["train"])

    def read(split: str) -> Arrays:
        listing = list_pictures(folders[split], classes)
        images = [np.asarray(read_rgb(listing.root / file)) for file in listing.files]
        if {image.shape for image in images} != {images[0].shape}:
            raise RunError(f"{folders[split]}: {config.name} has pictures of one size, but these differ.")
        return np.stack(images), listing.labels_N

    return classes, read


def _read_cifar(kind: type[CIFAR10], config: DataConfig) -> tuple[tuple[str, ...], Callable[[str], Arrays]]:
    """CIFAR as torchvision stores it, in pickles; torchvision checks their hashes before it opens them."""
    root = Path(config.root) if config.root is not None else CACHE

    def read(split: str) -> Arrays:
        try:
            dataset = kind(str(root), train=split == "train", download=config.download)
        except (OSError, RuntimeError) as error:
            first = str(error).splitlines()[0].rstrip(".")
            kind_of_error = RunError if (root / kind.base_folder).exists() else MissingDataError
            raise kind_of_error(
                f"{config.name} is not in {root} ({first}): set data.root to a folder with {kind.base_folder}, or with "
                "train/CLASS and test/CLASS folders of pictures."
            ) from error
        return np.asarray(dataset.data, np.uint8), np.asarray(dataset.targets, np.int64)

    return tuple(_cifar_classes(kind, root, config.download)), read


def _cifar_classes(kind: type[CIFAR10], root: Path, download: bool) -> list[str]:
    try:
        return kind(str(root), train=False, download=download).classes
    except (OSError, RuntimeError):
        return []  # reading the pictures, which comes next, raises the same as RunError


def find_idx(kind: type[MNIST], root: str | None, download: bool) -> Path:
    """The folder with the four .gz files of MNIST or Fashion-MNIST.

    With ``root``: that folder, or KIND/raw in it, which is where torchvision downloads to. Without: the folder of
    Debian's package (Fashion-MNIST), or the cache. If the files are in neither, torchvision downloads them, to ``root``
    or the cache, and checks their hashes.

    Raises:
        MissingDataError: the files are not there and cannot be downloaded.
    """
    fashion = kind is FashionMNIST
    base = Path(root) if root is not None else CACHE
    raw = base / kind.__name__ / "raw"
    candidates = [base, raw] if root is not None else ([DEBIAN_FASHION_MNIST] if fashion else []) + [raw]
    for folder in candidates:
        if all((folder / name).is_file() for pair in IDX_FILES.values() for name in pair):
            return folder
    if download:
        try:
            kind(str(base), download=True)
            return raw
        except (OSError, RuntimeError) as error:
            problem = f", and the download to {base} failed ({str(error).splitlines()[0]})"
    else:
        problem = " (data.download is false)"
    name, remedy = (
        ("Fashion-MNIST", "install Debian's package dataset-fashion-mnist, or ") if fashion else ("MNIST", "")
    )
    raise MissingDataError(
        f"{name} is not in {' or '.join(map(str, candidates))}{problem}: {remedy}set data.root to a folder with its "
        "four .gz files."
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes, the format of MNIST, as an array of the shape it gives.

    Raises:
        RunError: it is damaged.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        if content[:3] != b"\0\0\x08":
            raise ValueError("it is no IDX file of bytes")
        shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
    except (OSError, EOFError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}): fetch it again.") from error
