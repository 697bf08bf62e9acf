"""Signals while the processes of a loader begin, and its processes when the one that they load for is killed."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from conftest import FORKSERVER
from processes import wait_for
from trevsnn.data.signals import leave_signals, started
from trevsnn.errors import Interrupted
from trevsnn.train.interrupt import Interruption


@pytest.mark.parametrize("other_thread", [False, True])
def test_signals_that_come_while_loading_processes_begin_arrive_afterwards(other_thread):
    """A process's signal goes to any thread that does not block it, such as one of OpenMP's."""

    class Loader:
        num_workers, worker_init_fn = 1, staticmethod(leave_signals)

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


class Masks:
    """Each item is whether the process that loads it has SIGTERM blocked."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return int(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, []))


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system does not tell who sent a signal")
def test_only_processes_that_take_care_of_signals_begin_with_them_blocked():
    """Others would not end by a SIGTERM, and who started them would wait for them at its end."""
    for function, blocked in ((leave_signals, 1), (None, 0), (lambda _: None, 0)):
        loader = DataLoader(Masks(), num_workers=1, worker_init_fn=function)
        assert [int(item) for item in started(loader)] == [blocked] * 2


class Processes:
    """Each item is the number of the process that loads it."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return os.getpid()


def load_and_wait(start, found):
    options = {"multiprocessing_context": FORKSERVER if start == "forkserver" else start}
    loader = DataLoader(Processes(), num_workers=2, worker_init_fn=leave_signals, persistent_workers=True, **options)
    numbers = [str(int(number)) for number in loader]
    Path(f"{found}.part").write_text(" ".join(numbers))
    Path(f"{found}.part").rename(found)
    time.sleep(100)


def lives(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_loading_processes_end_with_the_one_that_is_killed(start, tmp_path):
    found = tmp_path / "numbers"
    process = FORKSERVER.Process(target=load_and_wait, args=(start, str(found)))
    process.start()
    wait_for(found, [process])
    numbers = set(found.read_text().split())
    assert len(numbers) == 2
    assert all(map(lives, numbers))
    process.kill()
    process.join()
    deadline = time.monotonic() + 60
    while any(map(lives, numbers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
