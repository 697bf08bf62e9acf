"""Commands and programs in processes of their own, forked from one that has everything imported, which takes longer than most tests."""

import os
import runpy
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from conftest import FORKSERVER
from trevsnn.cli.main import main


def start(arguments: list[str], output: Path | str = os.devnull) -> Any:
    """``trevsnn`` with these arguments; what it prints goes to a file."""
    process = FORKSERVER.Process(target=_command, args=(arguments, str(output)))
    process.start()
    return process


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
    _begin(output)
    sys.exit(main(arguments))


def _program(path: str, arguments: tuple[str, ...], output: str) -> None:
    _begin(output)
    warnings.simplefilter("error", UserWarning)
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).parent))
    os.chdir(Path(path).parent)
    runpy.run_path(path, run_name="__main__")


def _begin(output: str) -> None:
    os.setsid()  # a process group, as a terminal's command is
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
    torch.set_num_threads(1)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
