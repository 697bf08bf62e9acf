"""Pictures in folders, PART/CLASS/picture, read from disk as they are needed: ImageNet, Tiny ImageNet, a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.datasets.folder import IMG_EXTENSIONS

from trevsnn.data.config import DataConfig, Split
from trevsnn.data.listing import SPLITS, data_root, find_parts, list_classes, list_files, part_of
from trevsnn.data.part import FileList
from trevsnn.data.pictures.file import PictureFile, read_rgb
from trevsnn.errors import RunError


class PictureFolder(FileList):
    """Picture files, read as RGB and normalised by ImageNet's mean and standard deviation."""

    channels = 3
    mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    def read(self, index: int) -> Image.Image:
        return read_rgb(self.root / self.files[index])

    def open(self, index: int) -> PictureFile:
        return PictureFile.of(self.root / self.files[index])


def list_pictures(folder: Path, classes: Sequence[str]) -> PictureFolder:
    """The pictures of a part's folder.

    Raises:
        RunError: as :func:`trevsnn.data.listing.list_files`.
    """
    annotations = folder / "val_annotations.txt"
    if annotations.is_file():  # Tiny ImageNet as published: val/images/NAME, labels in a table
        rows = [line.split("\t")[:2] for line in annotations.read_text().splitlines()]
        labels = {name: classes.index(wnid) for name, wnid in rows if wnid in classes}
        return PictureFolder(folder, [f"images/{name}" for name in labels], list(labels.values()), classes)
    return PictureFolder(folder, *list_files(folder, IMG_EXTENSIONS, classes), classes)


def folder_splits(config: DataConfig) -> list[Split]:
    """The parts of a folder: train, val (cut from train where it has no folder), and test where it has one.

    Raises:
        RunError: there is no train, or neither val nor test.
    """
    folders, labelled = find_parts(data_root(config)), parts_with_labels(config)
    if "train" not in labelled or len(labelled) == 1:
        raise RunError(
            f"{data_root(config)} holds {', '.join(folders) or 'none'} of the folders train, val and test: it needs train, and "
            "val or test, each with a folder of pictures for every class."
        )
    return ["train", "val", "test"] if "test" in labelled else ["train", "val"]


def parts_with_labels(config: DataConfig) -> list[Split]:
    """The parts of a folder that have a folder with labelled pictures.

    Raises:
        RunError: there is no such folder.
    """
    folders = find_parts(data_root(config))
    return [split for split in SPLITS if split in folders and not _unlabelled(folders[split])]


def is_without_train(config: DataConfig) -> bool:
    """Whether a folder has val or test, but no train: enough for a network that is trained.

    Raises:
        RunError: there is no such folder.
    """
    parts = parts_with_labels(config)
    return bool(parts) and "train" not in parts


def load_without_train(config: DataConfig, split: Split) -> PictureFolder:
    """The pictures of val/CLASS or test/CLASS of a folder without train.

    Raises:
        RunError: a class has no pictures.
    """
    folder = find_parts(data_root(config))[split]
    return list_pictures(folder, list_classes(folder))


def load_folder(config: DataConfig, split: Split) -> PictureFolder:
    """The pictures of one part of train/CLASS, val/CLASS, test/CLASS.

    Raises:
        RunError: there is no such part, or a class has no pictures.
    """
    if split not in folder_splits(config):
        raise RunError(f"{data_root(config)} has no test folder: evaluate on 'val'.")
    return part_of(find_parts(data_root(config)), split, list_pictures)


def _unlabelled(folder: Path) -> bool:
    """Whether a part has no labels, as Tiny ImageNet's test part."""
    return not (folder / "val_annotations.txt").is_file() and [p.name for p in folder.iterdir()] == ["images"]
