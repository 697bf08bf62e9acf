"""All files below a folder: through links, without loops, and without what systems and programs leave behind."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from trevsnn.errors import RunError

#: Names, in lower case, that systems and programs give to what is no data; besides, whatever begins with a dot.
SYSTEM_NAMES = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "system volume information", "@eadir", "lost+found")
)  # fmt: skip


@dataclass
class Walk:
    """What lies below a folder. Paths begin with the folder's own.

    Attributes:
        files: whatever is no folder, links that lead nowhere among them, sorted.
        hidden: files and folders that are left out with all that they hold, see :func:`is_hidden`.
        links: links to folders, which were followed.
        loops: links to a folder that they lie in, which were not.
        again: folders that are there already under another path, which were not entered a second time.
    """

    files: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    loops: list[Path] = field(default_factory=list)
    again: list[Path] = field(default_factory=list)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is no data by its name: it begins with a dot, or is of ``SYSTEM_NAMES``."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def leads_back(path: Path) -> bool:
    """Whether a path is a link to a folder that it lies in, at any depth."""
    return path.is_symlink() and _real(path.parent).is_relative_to(_real(path))


def walk(folder: Path) -> Walk:
    """Walk through a folder, at first through what lies in it, and then through the links to folders, in their order.

    So a real folder is entered once, and under its own path if it has one below ``folder``.

    Raises:
        RunError: a folder cannot be listed.
    """
    found, seen = Walk(), set()
    links = _enter(folder, found, seen)
    while links:
        link = links.pop(0)
        if leads_back(link):
            found.loops.append(link)
        elif _key(link) in seen:
            found.again.append(link)
        else:
            found.links.append(link)
            links += _enter(link, found, seen)
    for paths in vars(found).values():
        paths.sort()
    return found


def walk_all(folders: Iterable[Path]) -> Walk:
    """What lies below several folders, one after the other; each real folder is entered once for each of them.

    Raises:
        RunError: as :func:`walk`.
    """
    together = Walk()
    for folder in folders:
        for name, paths in vars(walk(folder)).items():
            getattr(together, name).extend(paths)
    return together


def _enter(top: Path, found: Walk, seen: set[tuple[int, int]]) -> list[Path]:
    """List a folder and all real folders below it. Returns the links to folders, sorted, which are not entered."""
    links: list[Path] = []
    folders = [top]
    while folders:
        folder = folders.pop()
        if (key := _key(folder)) in seen:
            found.again.append(folder)
            continue
        seen.add(key)
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise _unlisted(folder, error) from error
        for entry in entries:
            path = Path(entry.path)
            if is_hidden(entry.name):
                found.hidden.append(path)
            elif not (path.is_dir() if entry.is_symlink() else entry.is_dir()):
                found.files.append(path)
            else:
                (links if entry.is_symlink() else folders).append(path)
    return sorted(links)


def _key(folder: Path) -> tuple[int, int]:
    """By which a real folder is known, whatever its path."""
    try:
        about = folder.stat()
    except OSError as error:
        raise _unlisted(folder, error) from error
    return about.st_dev, about.st_ino


def _unlisted(folder: Path, error: OSError) -> RunError:
    return RunError(f"{folder} cannot be listed ({error.strerror}): see to its permissions.")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
