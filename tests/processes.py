"""Commands and programs in processes of their own, forked from one that has everything imported, which takes longer than most tests."""

import os
import runpy
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

from conftest import FORKSERVER
from trevsnn.cli.main import main


def start(arguments: list[str], output: Path | str = os.devnull) -> Any:
    """``trevsnn`` with these arguments; what it prints goes to a file."""
    process = FORKSERVER.Process(target=_command, args=(arguments, str(output)))
    process.start()
    return process


def start_two(arguments: list[str], output: str = os.devnull, command: Callable[[list[str]], int] = main) -> list[Any]:
    """``trevsnn`` with these arguments in two processes, as torchrun starts them; what they print goes to a file.

    As torchrun does, this process holds the store in which they find each other: one of them could end before the other has.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = [
        FORKSERVER.Process(target=_one_of_two, args=(arguments, rank, store.port, output, command)) for rank in range(2)
    ]
    for process in processes:
        process.start()
        process.store = store  # for as long as somebody waits for them
    return processes


def wait_for(there: Path, processes: Sequence[Any]) -> None:
    """Until the file or folder is there; fails where one of the processes ends before, or after a minute."""
    deadline = time.monotonic() + 60
    while not there.exists():
        assert all(process.is_alive() for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.002)


def run_program(folder: Path, name: str, *arguments: str) -> list[str]:
    """The lines that a Python program of a folder prints; it has to end well and without a warning to its user."""
    with tempfile.NamedTemporaryFile("r") as output:
        process = FORKSERVER.Process(target=_program, args=(str(folder / name), arguments, output.name))
        process.start()
        process.join(300)
        printed = output.read()
    assert process.exitcode == 0, printed
    return printed.splitlines()


def _command(arguments: list[str], output: str) -> None:
    os.setsid()  # a process group, as a terminal's command is
    _begin(output)
    sys.exit(main(arguments))


def _one_of_two(arguments: list[str], rank: int, port: int, output: str, command: Callable[[list[str]], int]) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",
    }  # fmt: skip
    _begin(output)
    sys.exit(command(arguments))


def _program(path: str, arguments: tuple[str, ...], output: str) -> None:
    _begin(output)
    warnings.simplefilter("error", UserWarning)
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).parent))
    os.chdir(Path(path).parent)
    runpy.run_path(path, run_name="__main__")


def _begin(output: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
    torch.set_num_threads(1)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
