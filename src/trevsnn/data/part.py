"""One part of a data set (training, validation or test), be it arrays in memory, files, or event frames."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from trevsnn.errors import RunError


def home_folder() -> Path:
    """The user's; of a user who has none, one below which nothing can be, so that what needs no cache goes on."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/dev/null/there-is-no-home-folder")


#: Where downloads and what is made of data are kept, unless ``data.root`` or ``data.cache`` say otherwise.
CACHE = home_folder() / ".cache" / "trevsnn"


#: Files of a part whose sizes are looked at, at most: over a network each look may take most of a millisecond.
SIZES = 10_000


class MissingDataError(RunError):
    """A data set is not where it is looked for."""


@dataclass(frozen=True)
class About:
    """What a trained network must know of its data to be used without them.

    Attributes:
        classes: names of the classes, by index.
        channels: 1 of grey pictures, 3 of colour pictures, 2 (the polarities) of event frames.
        mean: of each channel of the training pictures scaled to 0..1, which normalisation takes off.
        std: their standard deviation, likewise, by which it divides.
    """

    classes: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Part(ABC):
    """Labelled items.

    Attributes:
        labels_N: class indices, int64.
        classes, channels, mean, std: see :class:`About`.
        shards_N: for each item the number of the shard that it lies in, int64; None where items lie by themselves.
    """

    labels_N: NDArray[np.int64]
    classes: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shards_N: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def about(self) -> About:
        """What a network trained on the part must know of it."""
        return About(self.classes, self.channels, self.mean, self.std)

    @abstractmethod
    def read(self, index: int) -> Any:
        """An item as its transform takes it: a PIL picture, or uint8 event counts (T, 2, H, W).

        Raises:
            UnreadableError: its file is missing or damaged.
        """

    def open(self, index: int) -> Any:
        """An item before its pixels are decoded, where it is a picture's file; else as :meth:`read` gives it.

        Raises:
            UnreadableError: its file is missing, or no picture.
        """
        return self.read(index)

    @abstractmethod
    def name(self, index: int) -> str:
        """An item's name in messages."""

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 that identifies the part's items and labels."""

    def sizes_digest(self) -> str | None:
        """SHA-256 of the sizes of the items' files; None where :meth:`digest` knows their content or sizes already."""
        return None


class FileList(Part):
    """A part whose items are files below a folder. ``read`` gives an item's path; subclasses read the file.

    Args:
        root: the folder.
        files: paths relative to it.
        labels: class indices.
        classes: their names.
    """

    def __init__(self, root: Path, files: Sequence[str], labels: Sequence[int], classes: Sequence[str]) -> None:
        self.root, self.files, self.classes = root, list(files), tuple(classes)
        self.labels_N = np.asarray(labels, np.int64)

    def read(self, index: int) -> Any:
        return self.root / self.files[index]

    def name(self, index: int) -> str:
        return str(self.root / self.files[index])

    def select(self, indices: NDArray[np.int64]) -> Self:
        """The part made of the files with these indices."""
        chosen = copy(self)
        chosen.files, chosen.labels_N = [self.files[i] for i in indices], self.labels_N[indices]
        return chosen

    def digest(self) -> str:
        """SHA-256 of relative paths and labels; the files' contents are not read."""
        lines = (f"{file}\t{label}\n" for file, label in zip(self.files, self.labels_N, strict=True))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def sizes_digest(self) -> str | None:
        """As of :class:`Part`; of up to ``SIZES`` files, which lie evenly among all. A file that is missing has none."""
        every = -(-len(self.files) // SIZES)
        sizes = (str(self._size(file)) for file in self.files[:: max(1, every)])
        return hashlib.sha256("\n".join(sizes).encode()).hexdigest()

    def _size(self, file: str) -> int | None:
        try:
            return (self.root / file).stat().st_size
        except OSError:
            return None
