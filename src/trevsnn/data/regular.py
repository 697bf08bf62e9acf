"""Reading whole files that may be anything by their names: pipes, devices, or larger than the memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file, which a link may lead to. Nothing else is opened, and no pipe is waited for.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is no regular file, or larger.
    """
    _check(path.stat(), most)
    with open(path, "rb", opener=_without_waiting) as file:
        about = os.fstat(file.fileno())
        _check(about, most)  # it may have been replaced since
        return file.read(about.st_size)


def _check(about: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(about.st_mode):
        kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
        raise ValueError(f"it is {kind}, and no file")
    if about.st_size > most:
        raise ValueError(f"it has {about.st_size:,} bytes, more than the {most:,} that are read")


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)
