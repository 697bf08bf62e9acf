"""Which loops the engine runs in, compiled or naive, and in how many threads."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from trevsnn.errors import RunError

#: Options of Numba in the working folder, which it reads whenever it is loaded, and may be from an export that was sent.
NUMBA_CONFIG = ".numba_config.yaml"


@cache
def chosen() -> Any:
    """The module of the loops: :mod:`.loops_numba`, or :mod:`.loops_numpy` where Numba is not installed, with a warning.

    Raises:
        RunError: Numba would take options from a file in the working folder.
    """
    if Path(NUMBA_CONFIG).exists():
        raise RunError(
            f"the working folder {Path.cwd()} holds {NUMBA_CONFIG}, which may name a folder of compiled code that Numba would run: "
            "remove it, or work in another folder, and give Numba's options as environment variables."
        )
    try:
        loops = import_module("trevsnn.deploy.int8.loops_numba")
    except ImportError:
        warnings.warn(
            "Numba is not installed: the spike-driven engine is dense and slow, with the same results; "
            "pip install 'trevsnn[deploy]'.", stacklevel=2,
        )  # fmt: skip
        return import_module("trevsnn.deploy.int8.loops_numpy")
    _start_numba()
    return loops


def set_threads() -> None:
    """Let the loops run in as many threads as PyTorch now has."""
    if chosen().__name__ == "trevsnn.deploy.int8.loops_numpy":
        return
    _start_numba()


def _start_numba() -> None:
    """Numba's threads, as many as PyTorch's."""
    numba, threads = import_module("numba"), torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    # The two may share one OpenMP, whose number of threads Numba's start sets to that of all processors.
    torch.set_num_threads(threads)
