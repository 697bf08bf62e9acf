"""The lock of a run that is being trained: a second process is told so. It ends with the process that holds it, however that dies."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import warnings
from pathlib import Path
from types import TracebackType

from trevsnn.errors import RunError
from trevsnn.files import open_to_lock

_BUSY = (errno.EACCES, errno.EAGAIN)
_HOLDER = re.compile(r"process \d{1,20} on [\w.-]{1,255}")


class RunLock:
    """A context that holds the lock of a run's folder from :meth:`take` to its end.

    It is POSIX's lock of a file: loading processes, which are forked, do not inherit it, and it is known over NFS.
    """

    def __init__(self) -> None:
        self._handle: int | None = None

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def take(self, path: Path, run: Path) -> None:
        """Take the lock.

        Args:
            path: of the file that is locked, which is made.
            run: the folder, for the message.

        Raises:
            RunError: another process trains the run, the file cannot be made, or it has a second name.
        """
        try:
            handle = open_to_lock(path)
        except OSError as error:
            raise RunError(
                f"{path} cannot be opened to lock it ({error.strerror}): remove it if it is a link or folder, or make {run} writable."
            ) from error
        if os.fstat(handle).st_nlink > 1:  # a hard link: the same file under a second name, perhaps in another folder
            os.close(handle)
            raise RunError(
                f"{path} is a file that has a second name elsewhere and would be overwritten: remove it, and go on."
            )
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 300).decode(errors="replace")
            os.close(handle)
            if error.errno in _BUSY:
                who = f", by {holder}" if _HOLDER.fullmatch(holder) else ""
                raise RunError(f"{run} is being trained already{who}: wait for its end, or end it first.") from None
            warnings.warn(
                f"the file system of {run} has no locks ({error.strerror}): see to it that no other process trains this run.",
                stacklevel=2,
            )
            return
        self._handle = handle
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock of a file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # those who ask do not shut each other out
    except OSError as error:
        return error.errno in _BUSY
    finally:
        os.close(handle)
    return False
