"""Picture data sets with fixed splits, and their way into tensors."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.datasets import FashionMNIST
from torchvision.transforms import v2

from trevsnn.config import DataConfig
from trevsnn.errors import RunError

Split = Literal["train", "val", "test"]

CACHE = Path.home() / ".cache" / "trevsnn"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
# Splits are drawn once and for all: the seed is part of the data set's definition, not of a run.
SPLIT_SEED = 0
FASHION_MNIST_VALIDATION = 5000


@dataclass(frozen=True)
class Pictures:
    """One part of a data set, in memory.

    Attributes:
        images_NHW: uint8 grey values.
        labels_N: int64 class indices.
        classes: their names.
        mean, std: of the training part's grey values in 0..1, for normalisation.
    """

    images_NHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    classes: tuple[str, ...]
    mean: float
    std: float

    def digest(self) -> str:
        """SHA-256 of pictures and labels: the identity of a split."""
        return hashlib.sha256(self.images_NHW.tobytes() + self.labels_N.tobytes()).hexdigest()


def load(config: DataConfig, split: Split) -> Pictures:
    """Read one part of the data set that ``config`` names.

    Digits (1,797 scans of 8 x 8 of the UCI test set, with scikit-learn) have "train" and, a stratified fifth, "val".
    Fashion-MNIST has its own "test"; "val" is a stratified 5,000 of its 60,000 training pictures.

    Raises:
        RunError: there is no such part, or files are missing or damaged.
    """
    if config.name == "digits":
        return _digits(split)
    return _fashion_mnist(config, split)


def splits(config: DataConfig) -> list[Split]:
    """The parts the data set has."""
    return ["train", "val"] if config.name == "digits" else ["train", "val", "test"]


def _digits(split: Split) -> Pictures:
    if split == "test":
        raise RunError("digits has no test part: evaluate on 'val', the fifth held out of training.")
    grey, labels = load_digits(return_X_y=True)
    images = np.round(np.asarray(grey).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = np.asarray(labels, np.int64)
    train, val = _cut(labels, 0.2)
    return _part(images, labels, train, val if split == "val" else train, tuple("0123456789"))


def _fashion_mnist(config: DataConfig, split: Split) -> Pictures:
    folder = find_fashion_mnist(config.root, config.download)
    images, labels = (read_idx(folder / name) for name in FASHION_MNIST_FILES["train"])
    if images.ndim != 3 or len(images) != len(labels):
        raise RunError(f"{folder}: pictures {images.shape} and labels {labels.shape} do not belong together.")
    train, val = _cut(labels, FASHION_MNIST_VALIDATION)
    classes = tuple(FashionMNIST.classes)
    part = _part(images, labels.astype(np.int64), train, val if split == "val" else train, classes)
    if split == "test":
        images, labels = (read_idx(folder / name) for name in FASHION_MNIST_FILES["test"])
        return Pictures(images, labels.astype(np.int64), classes, part.mean, part.std)
    return part


def _cut(labels: NDArray[Any], held_out: float | int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training and the held-out pictures, stratified by class; a share or a number is held out."""
    parts = train_test_split(np.arange(len(labels)), test_size=held_out, random_state=SPLIT_SEED, stratify=labels)
    return np.asarray(parts[0]), np.asarray(parts[1])


def _part(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    wanted: NDArray[np.int64],
    classes: tuple[str, ...],
) -> Pictures:
    grey = images[train] / 255
    return Pictures(images[wanted], labels[wanted], classes, float(grey.mean()), float(grey.std()))


def find_fashion_mnist(root: str | None, download: bool) -> Path:
    """The folder with Fashion-MNIST's four .gz files: ``root`` as it is or as torchvision fills it, else Debian's, else
    the cache, else downloaded by torchvision (checked by its hashes) into ``root`` or the cache.

    Raises:
        RunError: not found and not to be had.
    """
    base = Path(root) if root is not None else CACHE
    raw = base / "FashionMNIST" / "raw"
    candidates = [base, raw] if root is not None else [DEBIAN_FASHION_MNIST, raw]
    for folder in candidates:
        if all((folder / name).is_file() for pair in FASHION_MNIST_FILES.values() for name in pair):
            return folder
    if download:
        try:
            FashionMNIST(str(base), download=True)
            return raw
        except (OSError, RuntimeError) as error:
            problem = f", and the download to {base} failed ({str(error).splitlines()[0]})"
    else:
        problem = " (data.download is false)"
    raise RunError(
        f"Fashion-MNIST is not in {' or '.join(map(str, candidates))}{problem}: install Debian's package "
        "dataset-fashion-mnist, or set data.root to a folder with its four .gz files."
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes, the format of MNIST. Raises RunError where it is damaged."""
    try:
        content = gzip.decompress(path.read_bytes())
        if content[:3] != b"\0\0\x08":
            raise ValueError("it is no IDX file of bytes")
        shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
    except (OSError, EOFError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}): fetch it again.") from error


def picture_to_tensor(config: DataConfig, mean: float, std: float, *, training: bool) -> v2.Compose:
    """The transform from a grey PIL picture to a normalised (1, S, S) float32 tensor, augmented in training."""
    steps: list[torch.nn.Module] = [v2.ToImage(), v2.Resize([config.image_size, config.image_size], antialias=True)]
    if training:
        if config.rotation > 0:
            steps.append(v2.RandomRotation([-config.rotation, config.rotation], v2.InterpolationMode.BILINEAR))
        if config.crop_padding > 0:
            steps.append(v2.RandomCrop(config.image_size, padding=config.crop_padding))
        if config.flip:
            steps.append(v2.RandomHorizontalFlip())
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize([mean], [std])]
    if training and config.erasing > 0:
        steps.append(v2.RandomErasing(config.erasing))
    return v2.Compose(steps)


class PictureDataset(Dataset[tuple[Tensor, int]]):
    """Pictures as tensors. An item is asked for as (epoch, index): its augmentation depends on these and the seed
    alone, whatever process loads it and whatever was loaded before."""

    def __init__(self, pictures: Pictures, config: DataConfig, seed: int, *, training: bool) -> None:
        self.pictures = pictures
        self.transform = picture_to_tensor(config, pictures.mean, pictures.std, training=training)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pictures.labels_N)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        with torch.random.fork_rng(devices=[]):
            # The CPU's generator alone: torch.manual_seed would visit every device, for a millisecond a picture.
            torch.default_generator.manual_seed(mix_seed(self.seed, epoch, index))
            tensor = self.transform(Image.fromarray(self.pictures.images_NHW[index]))
        return tensor, int(self.pictures.labels_N[index])


class EpochSampler(Sampler[tuple[int, int]]):
    """The keys of one epoch, from its ``start``-th picture on: shuffled by (seed, epoch) alone, or in order.

    Set ``epoch`` and ``start`` before iterating.
    """

    def __init__(self, size: int, seed: int, *, shuffle: bool) -> None:
        self.size, self.seed, self.shuffle = size, seed, shuffle
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return self.size - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = list(range(self.size))
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
            order = torch.randperm(self.size, generator=generator).tolist()
        return ((self.epoch, index) for index in order[self.start :])


def mix_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, so that neighbouring ones give unrelated random streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def read_pictures(paths: Sequence[Path], config: DataConfig, mean: float, std: float) -> Tensor:
    """Read picture files as a batch (N, 1, S, S), float32, normalised as in training, grey.

    Raises:
        RunError: a file is missing or no picture.
    """
    transform = picture_to_tensor(config, mean, std, training=False)
    tensors = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                tensors.append(transform(picture.convert("L")))
        except FileNotFoundError as error:
            raise RunError(f"{path} does not exist: give the path of a picture.") from error
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise RunError(f"{path} is no picture that can be read: give a PNG, JPEG or the like.") from error
    return torch.stack(tensors)
