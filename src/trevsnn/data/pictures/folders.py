"""Pictures in folders, PART/CLASS/picture or CLASS/picture, read from disk as they are needed: ImageNet, a user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from trevsnn.data.config import DataConfig, Split
from trevsnn.data.held_out import hashed_split
from trevsnn.data.listing import SPLITS, data_root, find_parts, list_classes, list_files, part_of
from trevsnn.data.part import FileList
from trevsnn.data.pictures.file import PICTURE_ENDINGS, PictureFile
from trevsnn.data.pictures.layout import own_parts
from trevsnn.errors import RunError, listed
from trevsnn.files import SMALL, read_file

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R 601-2), by which colours become grey


class PictureFolder(FileList):
    """Picture files, read as RGB and normalised by ImageNet's mean and standard deviation.

    Attributes:
        exif_orientation: whether they are turned as their EXIF data say.
    """

    channels = 3
    mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    exif_orientation = True

    def read(self, index: int) -> Image.Image:
        return self.open(index).decode()

    def open(self, index: int) -> PictureFile:
        path = self.root / self.files[index]
        return PictureFile.of(path, grey=self.channels == 1, exif_orientation=self.exif_orientation)


class GreyFolder(PictureFolder):
    """Picture files, read as one channel and normalised by the luma of ImageNet's mean and standard deviation."""

    channels = 1
    mean = (sum(w * m for w, m in zip(LUMA, IMAGENET_DEFAULT_MEAN, strict=True)),)
    std = (sum(w * s for w, s in zip(LUMA, IMAGENET_DEFAULT_STD, strict=True)),)


def list_pictures(folder: Path, classes: Sequence[str], config: DataConfig) -> PictureFolder:
    """The pictures of a part's folder, to be read as ``config`` says.

    Raises:
        RunError: as :func:`trevsnn.data.listing.list_files`; or Tiny ImageNet's table of labels is damaged.
    """
    annotations = folder / "val_annotations.txt"
    if annotations.is_file():  # Tiny ImageNet as published
        files, labels = _list_annotated(annotations, classes)
    else:
        files, labels = list_files(folder, PICTURE_ENDINGS, classes)
    listing = (GreyFolder if config.grey else PictureFolder)(folder, files, labels, classes)
    listing.exif_orientation = config.exif_orientation
    return listing


def folder_splits(config: DataConfig) -> list[Split]:
    """The parts of a folder: train, val (cut from train where it has no folder), and test where it has one.

    Raises:
        RunError: there is no train, or neither val nor test; or of one's own pictures, as
            :func:`trevsnn.data.pictures.layout.own_parts`, where the class folders alone and train alone do as well.
    """
    return ["train", "val", "test"] if "test" in _labelled_parts(config) else ["train", "val"]


def parts_with_labels(config: DataConfig) -> list[Split]:
    """The parts of a folder that have a folder with labelled pictures.

    Raises:
        RunError: there is no such folder.
    """
    labelled = _with_labels(find_parts(data_root(config)))
    return [split for split in SPLITS if split in labelled]


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
    return list_pictures(folder, list_classes(folder), config)


def load_folder(config: DataConfig, split: Split) -> PictureFolder:
    """The pictures of one part of train/CLASS, val/CLASS, test/CLASS.

    Where there is train with neither val nor test, or CLASS folders without parts, "val" is held out by
    :func:`trevsnn.data.held_out.hashed_split`; with test but no val, it is a stratified tenth of train.

    Raises:
        RunError: there is no such part, or a class has no pictures, or too few.
    """
    root = data_root(config)
    if split not in folder_splits(config):
        raise RunError(f"{root} has no test folder: evaluate on 'val'.")
    read = partial(list_pictures, config=config)
    folders = _labelled_parts(config)
    if len(folders) > 1:
        return part_of(folders, split, read)
    together = folders.get("train", root)
    whole = read(together, list_classes(together))
    train, val = hashed_split(whole.files, whole.labels_N, whole.classes)
    return whole.select(val if split == "val" else train)


def _labelled_parts(config: DataConfig) -> dict[str, Path]:
    """The parts that have labels; none where the folder holds the classes."""
    root = data_root(config)
    own = config.name == "folder"
    folders = own_parts(root) if own else find_parts(root)
    labelled = _with_labels(folders)
    if not own and ("train" not in labelled or len(labelled) == 1):
        raise RunError(
            f"{root} holds {', '.join(folders) or 'none'} of the folders train, val and test: it needs train, and "
            "val or test, each with a folder of pictures for every class."
        )
    return labelled


def _with_labels(folders: Mapping[str, Path]) -> dict[str, Path]:
    return {split: folders[split] for split in SPLITS if split in folders and not _unlabelled(folders[split])}


def _unlabelled(folder: Path) -> bool:
    """Whether a part has no labels, as Tiny ImageNet's test part."""
    return not (folder / "val_annotations.txt").is_file() and [p.name for p in folder.iterdir()] == ["images"]


def _list_annotated(table: Path, classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """As :func:`trevsnn.data.listing.list_files`, of images/NAME by a table of lines NAME, WNID and a box, with tabs between
    them. Pictures of classes that the training part has not are left out."""
    try:
        lines = read_file(table, SMALL, links=True).decode().splitlines()
    except (OSError, ValueError) as error:
        raise RunError(f"{table} cannot be read ({error}): fetch it again.") from error
    wnids: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        name, wnid = (*line.split("\t"), "")[:2]
        if not wnid or name in ("", "..") or name in wnids or "/" in name:
            raise RunError(
                f"{table}, line {number}: it needs the name of a picture in images, once, a tab and a WNID: fetch it again."
            )
        wnids[name] = wnid
    by_name = {name: classes.index(wnid) for name, wnid in wnids.items() if wnid in classes}
    lacking = sorted(set(classes) - set(wnids.values()))
    if lacking:
        raise RunError(f"{table} names no picture of {listed(lacking)}: every class needs one.")
    return [f"images/{name}" for name in by_name], list(by_name.values())
