"""One part of a data set - training, validation or test - whatever it is made of."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from trevsnn.errors import RunError

Split = Literal["train", "val", "test"]

CACHE = Path.home() / ".cache" / "trevsnn"
# Splits are drawn once and for all: the seed is part of a data set's definition, not of a run.
SPLIT_SEED = 0


class UnreadableError(RunError):
    """One item of a data set cannot be read."""


@dataclass(frozen=True)
class About:
    """What a trained network must know of its data to be used without them.

    Attributes:
        classes: their names.
        channels: of an item: 1 grey or 3 of a picture, 2 polarities of event frames.
        mean, std: by channel, for normalisation of pictures scaled to 0..1.
    """

    classes: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Part(ABC):
    """Items with labels.

    Attributes:
        labels_N: int64 class indices.
        classes, channels, mean, std: see :class:`About`.
    """

    labels_N: NDArray[np.int64]
    classes: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def about(self) -> About:
        """What outlives the data."""
        return About(self.classes, self.channels, self.mean, self.std)

    @abstractmethod
    def read(self, index: int) -> Any:
        """An item as its transform takes it: a PIL picture, or uint8 event counts (T, 2, H, W). Raises UnreadableError."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call an item in a message."""

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of what is in the part, with labels: the identity of a split."""


class FileList(Part):
    """A part whose items are files below a folder: their paths, unless a subclass reads them."""

    def __init__(self, root: Path, files: Sequence[str], labels: Sequence[int], classes: Sequence[str]) -> None:
        self.root, self.files, self.classes = root, list(files), tuple(classes)
        self.labels_N = np.asarray(labels, np.int64)

    def read(self, index: int) -> Any:
        return self.root / self.files[index]

    def name(self, index: int) -> str:
        return str(self.root / self.files[index])

    def select(self, indices: NDArray[np.int64]) -> Self:
        """Some of its files, as a part."""
        return type(self)(self.root, [self.files[i] for i in indices], self.labels_N[indices].tolist(), self.classes)

    def digest(self) -> str:
        """Of paths below the folder and labels; contents are not read."""
        lines = (f"{file}\t{label}\n" for file, label in zip(self.files, self.labels_N, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def cut(labels: NDArray[Any], held_out: float | int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training and the held-out items, stratified by class; a share or a number is held out.

    Raises:
        RunError: too few items of some class.
    """
    try:
        parts = train_test_split(np.arange(len(labels)), test_size=held_out, random_state=SPLIT_SEED, stratify=labels)
    except ValueError as error:
        raise RunError(f"no validation part can be cut from {len(labels)} training items ({error}).") from error
    return np.asarray(parts[0]), np.asarray(parts[1])


def cut_tails(labels: NDArray[np.int64]) -> dict[Split, NDArray[np.int64]]:
    """Of each class, in the order given: the last tenth for test, the tenth before for validation, the rest to train.

    The rule for sets without official split. The test part is that of SpikingJelly's ``split_to_train_test_set(0.9)``
    on files in the same order; validation is cut from the rest.

    Raises:
        RunError: a class has fewer than three items.
    """
    by_class: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels.tolist()):
        by_class[label].append(index)
    parts: dict[Split, list[int]] = {"train": [], "val": [], "test": []}
    for label, indices in sorted(by_class.items()):
        tail = max(1, len(indices) // 10)
        if len(indices) <= 2 * tail:
            raise RunError(
                f"class {label} has {len(indices)} items: three are needed for training, validation and test."
            )
        parts["train"] += indices[: -2 * tail]
        parts["val"] += indices[-2 * tail : -tail]
        parts["test"] += indices[-tail:]
    return {split: np.asarray(indices, np.int64) for split, indices in parts.items()}
