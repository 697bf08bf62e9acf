"""Picture sets that are held in memory as arrays: digits, MNIST, Fashion-MNIST, CIFAR."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, FashionMNIST

from trevsnn.data.config import DataConfig, Split
from trevsnn.data.listing import find_parts, list_classes
from trevsnn.data.part import CACHE, MissingDataError, Part
from trevsnn.data.pictures.folders import list_pictures
from trevsnn.data.splitting import stratified_split
from trevsnn.errors import RunError
from trevsnn.files import read_file
from trevsnn.sizes import size_text

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]  # pictures and labels

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
IDX_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
IDX_CLASSES = 10
MOST_IDX = 2**30  # bytes of an IDX file unpacked; MNIST's largest has 47 million
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
    if images.ndim != 3 or images.shape[:1] != labels.shape:
        raise RunError(f"{folder}: pictures {images.shape} and labels {labels.shape} do not belong together.")
    if len(labels) and labels.max() >= IDX_CLASSES:
        raise RunError(
            f"{folder} has a label {labels.max()}, and there are {IDX_CLASSES} classes: fetch its files again."
        )
    return images, labels.astype(np.int64)


def _read_folder(config: DataConfig, root: Path) -> tuple[tuple[str, ...], Callable[[str], Arrays]]:
    """A set as folders of pictures, train/CLASS and test/CLASS, all of one size."""
    folders = find_parts(root)
    if "train" not in folders:
        raise RunError(f"{root} holds test, but no train: {config.name} needs train/CLASS and test/CLASS.")
    classes = list_classes(folders["train"])

    def read(split: str) -> Arrays:
        listing = list_pictures(folders[split], classes, config)
        images: list[NDArray[np.uint8]] = []
        for number in range(len(listing)):
            image = np.asarray(listing.read(number))
            if images and image.shape != images[0].shape:
                sizes = " and ".join(size_text(shape[:2]) for shape in (images[0].shape, image.shape))
                raise RunError(
                    f"{listing.name(0)} and {listing.name(number)} differ in size, {sizes} (height x width), and {config.name} has "
                    "pictures of one size: resize them, or train with data.name folder."
                )
            images.append(image)
        return np.stack(images), listing.labels_N

    return classes, read


def _read_cifar(kind: type[CIFAR10], config: DataConfig) -> tuple[tuple[str, ...], Callable[[str], Arrays]]:
    """CIFAR as torchvision stores it, in pickles; torchvision checks their hashes before it opens them."""
    root = Path(config.root) if config.root is not None else CACHE
    download = config.download and may_download(config.root, kind.base_folder)

    def read(split: str) -> Arrays:
        try:
            dataset = kind(str(root), train=split == "train", download=download)
        except (OSError, RuntimeError) as error:
            there = (root / kind.base_folder).exists()
            why = f" ({str(error).splitlines()[0].rstrip('.')})" if there or download else ""
            raise (RunError if there else MissingDataError)(
                f"{config.name} is not in {root}{why}: set data.root to a folder with {kind.base_folder}, or with "
                "train/CLASS and test/CLASS folders of pictures."
            ) from error
        return np.asarray(dataset.data, np.uint8), np.asarray(dataset.targets, np.int64)

    return tuple(_cifar_classes(kind, root, download)), read


def _cifar_classes(kind: type[CIFAR10], root: Path, download: bool) -> list[str]:
    try:
        return kind(str(root), train=False, download=download).classes
    except (OSError, RuntimeError):
        return []  # reading the pictures, which comes next, raises the same as RunError


def may_download(root: str | None, folder: str) -> bool:
    """Whether a set may be downloaded to ``root``: it is the cache (None), is still to be made, or holds what an earlier
    download began in ``folder`` below it. A folder with other things is a user's own."""
    return root is None or not Path(root).exists() or (Path(root) / folder).is_dir()


def find_idx(kind: type[MNIST], root: str | None, download: bool) -> Path:
    """The folder with the four .gz files of MNIST or Fashion-MNIST.

    With ``root``: that folder, or KIND/raw in it, which is where torchvision downloads to. Without: the folder of
    Debian's package (Fashion-MNIST), or the cache. If the files are in neither, torchvision downloads them, to the cache, or to
    ``root`` where :func:`may_download`, and checks their hashes.

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
    problem = ""
    if not download:
        problem = " (data.download is false)"
    elif may_download(root, kind.__name__):
        try:
            kind(str(base), download=True)
            return raw
        except (OSError, RuntimeError) as error:
            problem = f", and the download to {base} failed ({str(error).splitlines()[0]})"
    name, remedy = (
        ("Fashion-MNIST", "install Debian's package dataset-fashion-mnist, or ") if fashion else ("MNIST", "")
    )
    raise MissingDataError(
        f"{name} is not in {' or '.join(map(str, candidates))}{problem}: {remedy}set data.root to a folder with its "
        "four .gz files."
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes, the format of MNIST, as an array of the shape it gives.

    No more is unpacked than its header says, and nothing of more than ``MOST_IDX`` bytes.

    Raises:
        RunError: it is damaged.
    """
    try:
        with gzip.open(BytesIO(read_file(path, MOST_IDX, links=True))) as file:
            magic = file.read(4)
            if magic[:3] != b"\0\0\x08" or len(magic) < 4:
                raise ValueError("it is no IDX file of bytes")
            shape = np.frombuffer(file.read(4 * magic[3]), ">u4", count=magic[3]).tolist()
            size = math.prod(shape)
            if size > MOST_IDX:
                raise ValueError(f"its header says {size:,} bytes, more than the {MOST_IDX:,} that are read")
            content = _read_up_to(file, size)
            if len(content) < size or file.read(1):
                raise ValueError(
                    f"its header says {size:,} bytes, and it has {'fewer' if len(content) < size else 'more'}"
                )
        return np.frombuffer(content, np.uint8).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise RunError(f"{path} is damaged ({error}): fetch it again.") from error


def _read_up_to(file: gzip.GzipFile, size: int) -> bytes:
    """Up to so many bytes, of which no memory is taken before they are there."""
    pieces: list[bytes] = []
    while size > 0 and (piece := file.read(min(size, 1 << 20))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
