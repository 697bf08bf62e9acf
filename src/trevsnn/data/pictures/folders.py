"""Pictures in folders, PART/CLASS/picture, read from disk as they are needed: ImageNet, Tiny ImageNet, a user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.datasets.folder import IMG_EXTENSIONS

from trevsnn.data.config import DataConfig
from trevsnn.data.part import CACHE, FileList, Split, UnreadableError, cut
from trevsnn.errors import RunError

VALIDATION_SHARE = 0.1
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Files = TypeVar("Files", bound=FileList)


class PictureFolder(FileList):
    """Picture files, read as RGB."""

    channels = 3
    mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    def read(self, index: int) -> Image.Image:
        return read_rgb(self.root / self.files[index])


def read_rgb(path: Path) -> Image.Image:
    """A picture file as RGB, whatever it is: grey, CMYK, with a palette or transparency.

    Raises:
        UnreadableError: missing, truncated, no picture, or larger than Pillow takes.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except FileNotFoundError as error:
        raise UnreadableError(f"{path} does not exist: has the data folder moved?") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableError(f"{path} cannot be read as a picture ({error}): replace it, or remove it.") from error


def find_parts(root: Path) -> dict[str, Path]:
    """The folders named train, val and test below ``root``, those that there are, in any case of letters."""
    if not root.is_dir():
        return {}
    return {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir() and p.name.lower() in SPLITS}


def list_classes(folder: Path) -> tuple[str, ...]:
    """The names of a part's class folders, sorted. Raises RunError where there are none."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise RunError(f"{folder} holds no folders: it must hold one for each class, with the class's files.")
    return tuple(names)


def list_files(folder: Path, extensions: Sequence[str], classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """The files with one of the extensions, at any depth below a part's class folders, and their labels.

    Raises:
        RunError: a class of ``classes`` has no files, or a folder is no class.
    """
    strange = set(list_classes(folder)) - set(classes)
    if strange:
        raise RunError(f"{folder} has a folder {min(strange)!r} that is no class of the training part.")
    files, labels = [], []
    for label, name in enumerate(classes):
        own = sorted(str(p.relative_to(folder)) for p in (folder / name).rglob("*") if p.suffix.lower() in extensions)
        if not own:
            raise RunError(
                f"{folder / name} holds no file that ends in {', '.join(extensions)}: every class needs one."
            )
        files += own
        labels += [label] * len(own)
    return files, labels


def list_pictures(folder: Path, classes: Sequence[str]) -> PictureFolder:
    """The pictures of one part. Raises RunError as :func:`list_files`."""
    annotations = folder / "val_annotations.txt"
    if annotations.is_file():  # Tiny ImageNet as published: val/images/NAME, labels in a table
        rows = [line.split("\t")[:2] for line in annotations.read_text().splitlines()]
        labels = {name: classes.index(wnid) for name, wnid in rows if wnid in classes}
        return PictureFolder(folder, [f"images/{name}" for name in labels], list(labels.values()), classes)
    return PictureFolder(folder, *list_files(folder, IMG_EXTENSIONS, classes), classes)


def folder_splits(config: DataConfig) -> list[Split]:
    """The parts of a folder: train, val, and test where it has one. Raises RunError where one is missing."""
    found = find_parts(_root(config))
    labelled = [split for split in SPLITS if split in found and not _unlabelled(found[split])]
    if "train" not in labelled or len(labelled) == 1:
        raise RunError(
            f"{_root(config)} holds {', '.join(found) or 'none'} of the folders train, val and test: it needs train, and "
            "val or test, each with a folder of pictures for every class."
        )
    return ["train", "val", "test"] if "test" in labelled else ["train", "val"]


def load_folder(config: DataConfig, split: Split) -> PictureFolder:
    """Read a part of train/CLASS, val/CLASS, test/CLASS.

    Raises:
        RunError: there is no such part, or a class without pictures.
    """
    if split not in folder_splits(config):
        raise RunError(f"{_root(config)} has no test folder: evaluate on 'val'.")
    return part_of(find_parts(_root(config)), split, list_pictures)


def part_of(folders: Mapping[str, Path], split: Split, read: Callable[[Path, Sequence[str]], Files]) -> Files:
    """A part's own folder; where there is none for validation, "val" is a stratified tenth of the training files.

    Args:
        folders: of :func:`find_parts`, train among them.
        split: train, val or a part that has a folder.
        read: lists a folder's files, given the training part's classes.
    """
    classes = list_classes(folders["train"])
    if split == "test" or (split == "val" and "val" in folders):
        return read(folders[split], classes)
    whole = read(folders["train"], classes)
    if "val" in folders:
        return whole
    train, val = cut(whole.labels_N, VALIDATION_SHARE)
    return whole.select(val if split == "val" else train)


def _root(config: DataConfig) -> Path:
    return Path(config.root) if config.root is not None else CACHE / config.name


def _unlabelled(folder: Path) -> bool:
    """Whether a part has no labels to it, as Tiny ImageNet's test pictures."""
    return not (folder / "val_annotations.txt").is_file() and [p.name for p in folder.iterdir()] == ["images"]
