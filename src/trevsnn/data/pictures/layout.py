"""How a folder of pictures of one's own is laid out: PART/CLASS/picture, or CLASS/picture without parts."""

from __future__ import annotations

from pathlib import Path

from trevsnn.data.listing import find_parts, holds_a_set, list_classes, visible_folders
from trevsnn.data.pictures.file import PICTURE_ENDINGS
from trevsnn.errors import RunError

#: Names that others give to the parts. They are not taken for them, as earlier versions took no notice of such folders.
OTHER_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}


def own_parts(root: Path) -> dict[str, Path]:
    """The folders of the parts by name: train, with val or test or both or neither; none where ``root`` holds classes.

    Raises:
        RunError: a part has another name, train is missing, or there are neither parts nor two classes.
    """
    parts = find_parts(root)
    folders = visible_folders(root)
    refuse_other_names(root)
    if parts and "train" not in parts:
        raise RunError(
            f"{root} holds {' and '.join(parts)}, but no train: it needs train/CLASS with the pictures to train on, or the "
            "class folders alone."
        )
    if not parts:
        _check_classes(root, folders)
    return parts


def several_classes(folder: Path) -> tuple[str, ...]:
    """The classes of the training part, or of a folder without parts.

    Raises:
        RunError: there is one alone, or none.
    """
    classes = list_classes(folder)
    if len(classes) == 1:
        raise RunError(
            f"{folder} holds one class alone, {classes[0]}: two at least are needed, each with its own folder."
        )
    return classes


def refuse_other_names(root: Path) -> None:
    """Raise RunError where a folder beside parts, or every folder, has a name that others give to a part."""
    folders = visible_folders(root)
    others = [folder for folder in folders if folder.name.lower() in OTHER_NAMES]
    if others and (find_parts(root) or len(others) == len(folders)):
        part = OTHER_NAMES[others[0].name.lower()]
        raise RunError(
            f"{others[0]} is no part by its name: rename it to {part}, or move it away if it is not to be used."
        )


def _check_classes(root: Path, folders: list[Path]) -> None:
    """Refuse a folder that is no set of class folders, and say which one may be meant."""
    if not folders:
        loose = sum(p.suffix.lower() in PICTURE_ENDINGS for p in root.iterdir())
        found = (
            f"{loose} pictures but no folders" if loose else "none of the folders train, val and test, and no others"
        )
        raise RunError(
            f"{root} holds {found}: it needs a folder of pictures for every class, or train/CLASS and val/CLASS."
        )
    if len(folders) == 1:
        only = folders[0]
        meant = (
            f": did you mean {only}?"
            if holds_a_set(only)
            else ": two classes at least are needed, each with its own folder."
        )
        raise RunError(f"{root} holds one folder alone, {only.name}{meant}")
