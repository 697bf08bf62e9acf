"""Writing files so that after a crash at any moment they have their old content or the new one, never part of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from trevsnn.errors import RunError


def write_file(path: Path, content: bytes) -> None:
    """Write to a file beside ``path`` and rename it: at any moment ``path`` has its old content or the new one.

    Raises:
        RunError: it cannot be written; the old content is still there.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        write_through(beside, content)
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> RunError:
    """The error to raise where ``path`` cannot be written."""
    remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "see to that"
    return RunError(
        f"{path} cannot be written ({error.strerror}): {remedy}, and go on, with trevsnn train --resume if it is of a "
        "run; what was saved before is intact."
    )


def write_through(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has a folder's entries, such as the new name of a renamed file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
