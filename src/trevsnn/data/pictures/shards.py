"""Pictures in shards, tar files of the WebDataset layout, of which any one can be read by itself."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from trevsnn.data.config import DataConfig, Split
from trevsnn.data.listing import SPLITS, VALIDATION_SHARE, data_root
from trevsnn.data.part import CACHE, Part
from trevsnn.data.pictures.file import MOST_BYTES, PictureFile
from trevsnn.data.pictures.tar_index import Shard, changed, compressed, missing, read_shards, stamp_of
from trevsnn.data.sampling import LANES
from trevsnn.data.splitting import stratified_split
from trevsnn.data.walk import is_hidden
from trevsnn.errors import RunError, UnreadableError

#: Words in the name of a shard or its folder, and the part that they stand for.
WORDS: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
OPEN = LANES  # shards that a process keeps open: those that training reads at a time
_COMPRESSED = re.compile(r"\.(tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz)$")


class Shards(Part):
    """The pictures of some shards, read as RGB and normalised by ImageNet's mean and standard deviation.

    Args:
        root: folder that the shards lie below.
        shards: what is in them.
        classes: names of the classes.
        chosen_N: numbers of the pictures to take, rising, counted through all shards; None for all.
        exif_orientation: whether they are turned as their EXIF data say.

    Raises:
        RunError: there are no pictures, or one has a label beyond the classes.
    """

    channels = 3
    mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    def __init__(
        self,
        root: Path,
        shards: Sequence[Shard],
        classes: Sequence[str],
        chosen_N: NDArray[np.int64] | None = None,
        *,
        exif_orientation: bool = True,
    ) -> None:
        self.root, self.classes, self.exif_orientation = root, tuple(classes), exif_orientation
        self._files = ShardFiles(shards)
        pictures_N = np.concatenate([shard.pictures_N for shard in shards])
        shards_N = np.repeat(np.arange(len(shards)), [len(shard.pictures_N) for shard in shards])
        chosen_N = np.arange(len(pictures_N)) if chosen_N is None else chosen_N
        self._pictures_N, self.shards_N = pictures_N[chosen_N], shards_N[chosen_N]
        self.labels_N = np.ascontiguousarray(self._pictures_N["label"])
        if not len(self):
            raise RunError(f"{shards[0].path} and the shards beside it hold no samples.")
        beyond = np.flatnonzero(self.labels_N >= len(self.classes))
        if len(beyond):
            raise RunError(
                f"{self.name(beyond[0])} has label {self.labels_N[beyond[0]]}, but there are {len(self.classes)} classes, "
                f"counted from 0: correct it, or {root / 'classes.txt'}."
            )

    def read(self, index: int) -> Image.Image:
        """A picture as RGB.

        Raises:
            UnreadableError: it is damaged, or the disk fails.
            RunError: its shard is missing, or has changed.
        """
        return self.open(index).decode()

    def open(self, index: int) -> PictureFile:
        _, offset, size, _ = self._pictures_N[index].item()
        assert self.shards_N is not None
        if size > MOST_BYTES:
            raise UnreadableError(f"{self.name(index)} has {size:,} bytes, more than the {MOST_BYTES:,} that are read.")
        content = self._files.read(int(self.shards_N[index]), offset, size)
        return PictureFile(content, self.name(index), exif_orientation=self.exif_orientation)

    def name(self, index: int) -> str:
        assert self.shards_N is not None
        return f"{self._files.shards[self.shards_N[index]].path}/{self._member(index)}"

    def _member(self, index: int) -> str:
        return self._pictures_N["name"][index].decode("utf-8", "replace")

    def digest(self) -> str:
        """SHA-256 of the shards' relative paths and the pictures' names, sizes and labels; their content is not read."""
        assert self.shards_N is not None
        shards = [os.fsencode(shard.path.relative_to(self.root)) for shard in self._files.shards]
        digest = hashlib.sha256()
        for shard, (name, _, size, label) in zip(self.shards_N.tolist(), self._pictures_N.tolist(), strict=True):
            digest.update(b"%s\t%s\t%d\t%d\n" % (shards[shard], name, size, label))
        return digest.hexdigest()


class ShardFiles:
    """Shards open for reading, the latest ``OPEN`` of them, each opened when it is first read.

    A process that begins as a copy of another may go on with its open files, as no position in them is shared; one that is
    given the object opens its own.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        self._open: OrderedDict[int, int] = OrderedDict()

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Bytes of a shard.

        Raises:
            UnreadableError: the disk fails.
            RunError: the shard is missing, or has changed.
        """
        path = self.shards[number].path
        if number not in self._open:
            if len(self._open) == OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[number] = self._opened(number)
        self._open.move_to_end(number)
        try:
            content = os.pread(self._open[number], size, offset)
        except OSError as error:
            raise UnreadableError(f"{path} cannot be read ({error.strerror}): see to its disk.") from error
        if len(content) < size:
            raise changed(path)
        return content

    def _opened(self, number: int) -> int:
        shard = self.shards[number]
        try:
            file = os.open(shard.path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise missing(shard.path) from error
        if stamp_of(os.fstat(file)) != shard.stamp:
            os.close(file)
            raise changed(shard.path)
        return file

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "_open": OrderedDict()}  # numbers of open files mean nothing elsewhere

    def __del__(self) -> None:
        for file in self._open.values():
            os.close(file)


def find_shards(root: Path) -> dict[Split, list[Path]]:
    """The shards of each part: files ``*.tar`` in ``root`` and in its folders, sorted.

    The part is the one that a word of the file's name, or of its folder's below ``root``, stands for: see ``WORDS``. Words are
    what is between signs and digits. Hidden files and folders are left out.

    Raises:
        RunError: a shard is compressed, no word or several say which part it is of, or one of train is of another part, by a link.
    """
    found: dict[Split, list[Path]] = {}
    for path in sorted([*root.glob("*"), *root.glob("*/*")]):
        relative = path.relative_to(root)
        name = str(relative).lower()
        if any(is_hidden(part) for part in relative.parts):
            continue
        if _COMPRESSED.search(name):
            raise compressed(path)
        if path.suffix.lower() != ".tar" or not path.is_file():
            continue
        parts: set[Split] = {WORDS[word] for word in re.split("[^a-z]+", name) if word in WORDS}
        if len(parts) != 1:
            raise RunError(
                f"{path} is of {'several parts' if parts else 'no part'} by its name and its folder's: one of the words "
                f"{', '.join(WORDS)} must be in them."
            )
        found.setdefault(parts.pop(), []).append(path)
    trained = {path.resolve(): path for path in found.get("train", ())}
    for path in (path for part, paths in found.items() if part != "train" for path in paths):
        if (other := trained.get(path.resolve())) is not None:
            raise RunError(f"{path} and {other} are one file, by a link: held out is what is not trained on.")
    return found


def shard_splits(config: DataConfig) -> list[Split]:
    """The parts: train, val (cut from train where it has no shards), and test where it has some.

    Raises:
        RunError: as :func:`find_shards`; or there is no train, or neither val nor test.
    """
    found = find_shards(data_root(config))
    if "train" not in found or len(found) == 1:
        has = " and ".join(split for split in SPLITS if split in found)
        raise RunError(
            f"{data_root(config)} holds {f'shards of {has} alone' if has else 'no shards'}: it needs some of train, and of val "
            "or test, such as train-000000.tar and val-000000.tar."
        )
    return ["train", "val", "test"] if "test" in found else ["train", "val"]


def load_shards(config: DataConfig, split: Split) -> Shards:
    """The pictures of one part; where val has no shards of its own, a stratified tenth of train.

    Class names are the lines of classes.txt, or else "0" up to the largest label in train.

    Raises:
        RunError: there is no such part, or as :func:`find_shards`, :func:`trevsnn.data.pictures.tar_index.read_shards` and
            :class:`Shards`; or there is no classes.txt, and train lacks a class.
        UsageError: ``webdataset`` is not installed.
    """
    root = data_root(config)
    if split not in shard_splits(config):
        raise RunError(f"{root} has no test shards: evaluate on 'val'.")
    cache = Path(config.cache or CACHE / "indices")
    found = find_shards(root)
    own = split if split in found else "train"
    shards = read_shards(found[own], cache, config.workers)
    names = root / "classes.txt"
    if names.is_file():
        classes = _read_classes(names)
    else:
        classes = _count_classes(root, shards if own == "train" else read_shards(found["train"], cache, config.workers))
    whole = Shards(root, shards, classes, exif_orientation=config.exif_orientation)
    if split == "train":
        _warn_if_sorted(whole)
    if "val" in found or split == "test":
        return whole
    train, val = stratified_split(whole.labels_N, VALIDATION_SHARE)
    chosen_N = np.sort(val if split == "val" else train)
    return Shards(root, shards, classes, chosen_N, exif_orientation=config.exif_orientation)


def _read_classes(file: Path) -> list[str]:
    try:
        names = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]  # some editors begin it with a mark
    except UnicodeDecodeError as error:
        raise RunError(f"{file} is no text in UTF-8 ({error}): write it as such.") from error
    if not all(names) or not names:
        raise RunError(f"{file} is empty, or has an empty line: it needs the name of a class in each.")
    if len(set(names)) < len(names):
        raise RunError(f"{file} has a name twice: it needs another for each class.")
    return names


def _count_classes(root: Path, train: Sequence[Shard]) -> list[str]:
    labels_N = np.concatenate([shard.pictures_N["label"] for shard in train])
    if not len(labels_N):
        raise RunError(f"the shards of train in {root} hold no samples.")
    found = np.unique(labels_N)
    gaps = np.flatnonzero(found != np.arange(len(found)))
    if len(gaps):
        raise RunError(
            f"the shards of train in {root} have labels up to {found[-1]}, but none is {gaps[0]}: count classes from 0, or "
            f"give their names in {root / 'classes.txt'}, one a line."
        )
    return [str(label) for label in range(len(found))]


def _warn_if_sorted(train: Shards) -> None:
    """Warn where shards hold far fewer classes than shuffled items would: an epoch mixes items of ``LANES`` shards alone."""
    assert train.shards_N is not None
    pairs = np.unique(np.stack([train.shards_N, train.labels_N]), axis=1)
    sizes = np.bincount(train.shards_N)
    shares = np.bincount(train.labels_N) / len(train)
    shuffled = sum(float((1 - (1 - shares) ** size).sum()) for size in sizes)
    if np.count_nonzero(sizes) > LANES and pairs.shape[1] < shuffled / 2:
        warnings.warn(
            f"the shards of train in {train.root} hold {pairs.shape[1] / len(sizes):.1f} classes each, {shuffled / len(sizes):.1f} "
            f"if they were shuffled: items are mixed among {LANES} shards at a time, so shuffle them when you write shards.",
            stacklevel=2,
        )
