"""Loading processes leave Ctrl-C and SIGTERM to the process that they load for, and end with it.

A terminal sends Ctrl-C to all processes of a command, and torchrun and SLURM send SIGTERM to all of them. A training
wants to finish its step first, for which it needs its loading processes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def leave_signals(_: int = 0) -> None:
    """For ``worker_init_fn`` of a loader: ignore Ctrl-C, and SIGTERM of any process but the one that is loaded for.

    That one ends its loading processes by SIGTERM. Where the system does not tell who sent it (macOS, Windows), SIGTERM
    ends a loading process as before. If it is killed, so that it ends none, they end by themselves: PyTorch looks for that
    at the process that forked them, which with Python's fork server, the default from 3.14 on, is another one and lives on.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    unblocked = {signal.SIGINT, signal.SIGTERM}  # which this process may have inherited blocked
    if parent is not None and parent.pid is not None and hasattr(signal, "sigwaitinfo"):
        # Only a blocked signal can be waited for together with its sender; threads that begin later inherit that.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_for, args=(parent.pid,), daemon=True).start()
        unblocked.remove(signal.SIGTERM)
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, unblocked)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(0)


def _end_for(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def started(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a loader, whose processes begin with both signals blocked, until :func:`leave_signals` sees to them.

    That of Python's fork server lasts for its life, so that it does not die of SIGTERM. Signals that come meanwhile arrive
    afterwards. Processes that do not run :func:`leave_signals` begin as they would: blocked for good, no SIGTERM would end them.
    """
    mask = getattr(signal, "pthread_sigmask", None)  # not on Windows
    if mask is None or not _leaves_signals(loader):
        yield from loader
        return
    resource_tracker.ensure_running()  # which unblocks them where it is begun later
    with _put_off():
        before = mask(signal.SIG_BLOCK, SIGNALS)
        try:
            batches = iter(loader)
        finally:
            mask(signal.SIG_SETMASK, before)
    yield from batches


@contextmanager
def _put_off() -> Iterator[None]:
    """Both signals arrive after it. Those of a process reach another thread where this one blocks them, such as one of
    OpenMP's, and Python then runs their handlers in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) is not None}
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _leaves_signals(loader: Any) -> bool:
    inner = getattr(loader, "loader", loader)  # of a DeviceLoader
    return getattr(inner, "num_workers", 0) > 0 and inner.worker_init_fn is leave_signals
