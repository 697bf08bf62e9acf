"""Data sets that are folders, PART/CLASS/file: which parts and classes there are, and the files of each."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, get_args

from trevsnn.data.config import DataConfig, Split
from trevsnn.data.part import CACHE, FileList, MissingDataError
from trevsnn.data.splitting import stratified_split
from trevsnn.data.walk import Walk, is_hidden, leads_back, walk
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
        RunError: one is there twice, in two spellings; or it or a class of it is one folder with train, or one of its classes, by a
            link: training would see what it is not to see.
    """
    if not root.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in sorted(p for p in root.iterdir() if p.is_dir() and p.name.lower() in SPLITS):
        if (other := found.setdefault(path.name.lower(), path)) is not path:
            raise RunError(f"{root} holds both {other.name} and {path.name}: put them together, or move one away.")
    if "train" in found:
        trained = {_real(path): path for path in (found["train"], *visible_folders(found["train"]))}
        for part in found.values():
            for path in (part, *visible_folders(part)) if part != found["train"] else ():
                if (other := trained.get(_real(path))) is not None:
                    raise RunError(f"{path} and {other} are one folder, by a link: held out is what is not trained on.")
    return found


def visible_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, but for hidden ones and links back to a folder that they lie in."""
    folders = (p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name) and not leads_back(p))
    return sorted(folders)


def holds_a_set(folder: Path) -> bool:
    """Whether there are parts, or several classes, in a folder that is the only one in its own."""
    return bool(find_parts(folder)) or len(visible_folders(folder)) > 1


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
        RunError: a class of ``classes`` has no files, or some of another class by a link; a folder is no class, or one cannot be
            listed.
    """
    strange = set(list_classes(folder)) - set(classes)
    if strange:
        name = min(strange)
        alike = [other for other in classes if _plain(other) == _plain(name)]
        but = f", but for its letters' case or form it is {alike[0]!r}" if alike else ""
        raise RunError(
            f"{folder} has a folder {name!r} that is no class of the training part{but}: rename it, or move it away."
        )
    files, labels = [], []
    links_first = sorted(classes, key=lambda name: not (folder / name).is_symlink())
    homes = {_real(folder / name): name for name in links_first}  # so that a folder has its own name
    for label, name in enumerate(classes):
        found = walk(folder / name) if (folder / name).is_dir() else Walk()
        for link in (folder / name, *found.links):
            lies_in = (homes.get(path) for path in (_real(link), *_real(link).parents))
            if (other := next(filter(None, lies_in), name)) != name:
                raise RunError(f"{link} leads to class {other!r}: a file cannot be of two classes; remove the link.")
        own = sorted(str(p.relative_to(folder)) for p in found.files if p.suffix.lower() in extensions)
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


def _real(folder: Path) -> Path:
    """A folder by its path without links."""
    return Path(os.path.realpath(folder))


def _plain(name: str) -> str:
    """A name but for the case of its letters, and for how their accents are written."""
    return unicodedata.normalize("NFC", name).casefold()
