"""Reading and writing the files of runs, exports and configs, which somebody else may have made.

Written is to fresh names that are renamed when they are complete: after a crash at any moment a file has its old content or the
new one, never part of it, and a link that lies there is replaced, not written through. Read are regular files alone, no pipes or
devices, and links only where they are the user's own, and no more of them than fits what they are for.
"""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import shutil
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from trevsnn.errors import RunError, UsageError

#: Bytes of a file of a few values, such as about.json; and of one with a row for each epoch.
SMALL, LARGE = 16 * 2**20, 64 * 2**20

_BESIDE = ".trevsnn-{}.part"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Without waiting: opening a pipe to read it would last until somebody writes to it.
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def write_file(path: Path, content: bytes) -> None:
    """Write to a file of a new name beside ``path`` and rename it: at any moment ``path`` has its old content or the new one.

    Raises:
        RunError: it cannot be written, or is a pipe or a device, such as /dev/null; the old content is still there.
    """
    _refuse_devices(path)
    beside = fresh_name(path.parent)
    try:
        write_through(beside, content)
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # such as where the folder is a file
            beside.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def _refuse_devices(path: Path) -> None:
    """Raise RunError where a pipe, a socket or a device would be replaced: root could do that even to /dev/null."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
        raise RunError(
            f"{path} is a pipe or a device, and would be replaced by a file: give another place, or remove it."
        )


def check_picture_place(path: Path | None) -> None:
    """Refuse where :func:`write_picture` could not write, before anything is computed; None is no place, and allowed.

    Raises:
        UsageError: its folder is missing or cannot be written to, a folder is in its place, or there is no such format.
        RunError: a pipe or a device is in its place.
    """
    if path is None:
        return
    from matplotlib.backend_bases import FigureCanvasBase

    if path.is_dir():
        raise UsageError(f"{path} is a folder: give the name of the picture, such as {path / 'picture.png'}.")
    if not path.parent.is_dir():
        raise UsageError(
            f"the folder {path.parent} is missing: make it, or give another place for the picture {path.name}."
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(
            f"the folder {path.parent} cannot be written to: give another place for the picture {path.name}."
        )
    if (ending := path.suffix.removeprefix(".").lower()) and ending not in FigureCanvasBase.get_supported_filetypes():
        raise UsageError(f"{path} cannot be drawn: give a file that ends in .png, .svg or .pdf.")
    _refuse_devices(path)


def write_picture(figure: Any, path: Path) -> None:
    """Write a Matplotlib figure in the format that the end of the file's name asks for, or else as PNG.

    Raises:
        RunError: it cannot be written, or there is no such format.
    """
    try:
        content = figure_bytes(figure, path.suffix.removeprefix(".") or "png")
    except ValueError as error:
        raise RunError(f"{path} cannot be drawn ({error}): give a file that ends in .png, .svg or .pdf.") from error
    write_file(path, content)


def figure_bytes(figure: Any, format: str = "png", dpi: int = 110) -> bytes:
    """A Matplotlib figure as the content of a file. Its texts are never set by LaTeX, an outside program, though a file
    ``matplotlibrc`` in the working folder, which somebody else may have made, asks for that.

    Raises:
        ValueError: there is no such format.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    content = io.BytesIO()
    with rc_context({"text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # of a name in another script
        for text in figure.findobj(Text):
            text.set_usetex(False)
        figure.savefig(content, format=format, dpi=dpi)
    return content.getvalue()


def append_to_file(path: Path, content: bytes) -> None:
    """Write at the end of a regular file, which is made where it is missing.

    Raises:
        OSError: it cannot be written, or is none.
    """
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _OPEN, 0o666)
    with os.fdopen(handle, "ab") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        file.write(content)


def open_to_lock(path: Path) -> int:
    """A handle of a regular file that is read and written, and made where it is missing.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | _OPEN, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file")
    return handle


def read_file(path: Path, most: int, *, links: bool = False) -> bytes:
    """The content of a regular file. Nothing else is opened, and no pipe is waited for.

    Args:
        path: of the file.
        most: bytes that it may have.
        links: whether it may be a link to the file, as in a data set, which is the user's own.

    Raises:
        OSError: it is missing, or cannot be read.
        ValueError: it is a link, a pipe, a folder or a device, or larger.
    """
    _check(path.stat() if links else path.lstat(), most)
    handle = os.open(path, os.O_RDONLY | (_OPEN & ~os.O_NOFOLLOW if links else _OPEN))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        _check(status, most)  # it may have been replaced since
        return file.read(status.st_size)


def _check(status: os.stat_result, most: int) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise ValueError("it is a link, which is not followed: put the file itself in its place")
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise ValueError(f"it is {kind}, and no regular file")
    if status.st_size > most:
        raise ValueError(f"it has {status.st_size:,} bytes, and {most:,} at most are read")


def read_json(path: Path, most: int = SMALL) -> Any:
    """The content of a JSON file.

    Raises:
        OSError, ValueError: as :func:`read_file`; or it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(read_file(path, most))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def file_of(folder: Path, name: str) -> Path:
    """A file of a folder; in the Hub's cache, whose folders are links to files two folders above, that file.

    A link to anywhere else is left as it is, and refused by :func:`read_file`.
    """
    path = folder / name
    try:
        blob = path.resolve()
    except RuntimeError:  # of Python up to 3.12, where links lead in a circle
        return path
    return blob if blob.parent == folder.resolve().parent.parent / "blobs" else path


def refuse_links(*paths: Path) -> None:
    """Raise RunError where one of some folders is a link: what is written or removed there would be so elsewhere."""
    for path in paths:
        if path.is_symlink():
            raise RunError(f"{path} is a link, and folders of a run are no links: put the folder itself in its place.")


def unwritable(path: Path, error: OSError) -> RunError:
    """The error to raise where ``path`` cannot be written."""
    remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "see to that"
    return RunError(
        f"{path} cannot be written ({error.strerror}): {remedy}, and go on, with trevsnn train --resume if it is of a "
        "run; what was saved before is intact."
    )


def write_through(path: Path, content: bytes) -> None:
    """Write a file that there was not and wait until the disk has it."""
    with os.fdopen(os.open(path, _CREATE, 0o666), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def fresh_name(folder: Path) -> Path:
    """A name in a folder that nothing has, hidden, for what is renamed when it is complete."""
    return folder / _BESIDE.format(secrets.token_hex(8))


@contextmanager
def renamed_when_complete(path: Path) -> Iterator[BinaryIO]:
    """A context with a file of a new name beside ``path`` to write to, which is renamed to it unless an error comes.

    For caches, which are made again if they are lost: it does not wait for the disk, as :func:`write_file` does.
    """
    beside = fresh_name(path.parent)
    try:
        with beside.open("xb") as file:  # never one that is there, nor what a link leads to
            yield file
        beside.replace(path)
    finally:
        with suppress(OSError):
            beside.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what was written under a fresh name and never completed. Nobody else may be writing there."""
    for path in folder.glob(_BESIDE.format("*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until the disk has a folder's entries, such as the new name of a renamed file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
