"""Writing files so that a crash at any moment leaves the old content or the new, never a part of it."""

from __future__ import annotations

import os
from pathlib import Path

from trevsnn.errors import RunError


def write_file(path: Path, content: bytes) -> None:
    """Write beside and rename: at any moment ``path`` has its old content or its new one.

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
    return RunError(
        f"{path} cannot be written ({error.strerror}): make room, and go on with trevsnn train --resume; what was saved "
        "before is intact."
    )


def write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
