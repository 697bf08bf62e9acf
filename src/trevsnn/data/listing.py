"""Data sets that are folders, PART/CLASS/file: which parts and classes there are, and the files of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, get_args

from trevsnn.data.config import DataConfig, Split
from trevsnn.data.part import CACHE, FileList, MissingDataError
from trevsnn.data.splitting import stratified_split
from trevsnn.data.walk import is_hidden, leads_back, walk
from trevsnn.errors import RunError

VALIDATION_SHARE = 0.1  # of the training files, where a folder has no val
SPLITS: tuple[Split, ...] = get_args(Split)
Files = TypeVar("Files", bound=FileList)


def data_root(config: DataConfig) -> Path:
    """The folder a set lies in: ``data.root``, or one of the set's name in the cache.

    Raises:
        MissingDataError: there is no such folder.
    """
    root = Path(config.root) if config.root is not None else CACHE / config.name
    if not root.is_dir():
        own = {"folder": "your pictures", "shards": "your shards", "recordings": "your recordings"}
        raise MissingDataError(
            f"{root} is no folder: set data.root to the folder that holds {own.get(config.name, config.name)}."
        )
    return root


def find_parts(root: Path) -> dict[str, Path]:
    """The folders below ``root`` named train, val or test, in upper or lower case, by their names in lower case.

    Raises:
        RunError: one is there twice, in two spellings.
    """
    if not root.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in sorted(p for p in root.iterdir() if p.is_dir() and p.name.lower() in SPLITS):
        if (other := found.setdefault(path.name.lower(), path)) is not path:
            raise RunError(f"{root} holds both {other.name} and {path.name}: put them together, or move one away.")
    return found


def visible_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, but for hidden ones and links back to a folder that they lie in."""
    folders = (p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name) and not leads_back(p))
    return sorted(folders)


def list_classes(folder: Path) -> tuple[str, ...]:
    """The names of a part's class folders, sorted.

    Raises:
        RunError: there are none.
    """
    names = [p.name for p in visible_folders(folder)]
    if not names:
        raise RunError(f"{folder} holds no folders: it must hold one for each class, with the class's files.")
    return tuple(names)


def list_files(folder: Path, extensions: Sequence[str], classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """The files of a part with one of the extensions, at any depth below its class folders, and their labels.

    What :func:`trevsnn.data.walk.walk` leaves out is not among them.

    Returns:
        Paths relative to ``folder``, class by class, sorted; indices into ``classes``.

    Raises:
        RunError: a class of ``classes`` has no files, a folder is no class, or one cannot be listed.
    """
    strange = set(list_classes(folder)) - set(classes)
    if strange:
        raise RunError(f"{folder} has a folder {min(strange)!r} that is no class of the training part.")
    files, labels = [], []
    for label, name in enumerate(classes):
        found = walk(folder / name).files if (folder / name).is_dir() else []
        own = sorted(str(p.relative_to(folder)) for p in found if p.suffix.lower() in extensions)
        if not own:
            raise RunError(
                f"{folder / name} holds no file that ends in {', '.join(extensions)}: every class needs one."
            )
        files += own
        labels += [label] * len(own)
    return files, labels


def part_of(folders: Mapping[str, Path], split: Split, read: Callable[[Path, Sequence[str]], Files]) -> Files:
    """A part from its own folder; where there is none for validation, "val" is a stratified tenth of the training files.

    Args:
        folders: of :func:`find_parts`, train among them.
        split: "train", "val", or "test" if that has a folder.
        read: lists a folder's files, given the training part's classes.

    Raises:
        RunError: as :func:`list_files`; or too few training files to take a tenth of.
    """
    classes = list_classes(folders["train"])
    if split == "test" or (split == "val" and "val" in folders):
        return read(folders[split], classes)
    whole = read(folders["train"], classes)
    if "val" in folders:
        return whole
    return cut_validation(whole, split)


def cut_validation(whole: Files, split: Split) -> Files:
    """Of the training files the stratified tenth that is "val" where no other is given, or the rest, "train".

    Raises:
        RunError: there are too few.
    """
    train, val = stratified_split(whole.labels_N, VALIDATION_SHARE)
    return whole.select(val if split == "val" else train)
