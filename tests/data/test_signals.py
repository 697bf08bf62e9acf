"""Signals while the processes of a loader begin."""

import os
import signal
import threading
import time

import pytest

from trevsnn.data.signals import started
from trevsnn.errors import Interrupted
from trevsnn.train.interrupt import Interruption


@pytest.mark.parametrize("other_thread", [False, True])
def test_signals_that_come_while_loading_processes_begin_arrive_afterwards(other_thread):
    """A process's signal goes to any thread that does not block it, such as one of OpenMP's."""

    class Loader:
        def __iter__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)  # in which another thread gets it
            done.append("begun")
            return iter([1])

    done: list[str] = []
    over = threading.Event()
    if other_thread:
        threading.Thread(target=over.wait, args=(60,)).start()
    try:
        with pytest.raises(Interrupted, match="before the run began: nothing is saved"), Interruption():
            list(started(Loader()))
    finally:
        over.set()
    assert done == ["begun"]
