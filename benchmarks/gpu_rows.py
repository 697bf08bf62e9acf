"""What lets benchmarks/gpu.py be cut off: lines on the disk, a deadline, errors as results, a new process for a broken one."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gpu_cases import OUT_OF_MEMORY, UnavailableError
from trevsnn import __version__
from trevsnn.train.summary import processor_name

BEGAN = "TREVSNN_GPU_BEGAN"  # in the environment, so that a process that takes over knows how much time is left
LEFT = 2**28  # bytes on the device between two measurements: libraries' workspaces are less


class Rows:
    """The results of one piece, a JSON line each, written as they come.

    Args:
        path: of the file; made with its folder.
        retry: measure again what failed for another reason than memory.
    """

    def __init__(self, path: Path, *, retry: bool = False) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done = {
            row["key"] for row in read_rows(path) if not retry or row.get("error", OUT_OF_MEMORY) == OUT_OF_MEMORY
        }

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Append a result; it is on the disk when this returns."""
        self.done.add(key)
        with self.path.open("a") as file:
            # A new line first: the last one may be half a line, of a process that was killed.
            file.write("\n" + json.dumps({"key": key, **row}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The results in a file, without a line that was cut off; none where there is no file."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


class Deadline:
    """The moment after which nothing new is started, so many minutes after the command began."""

    def __init__(self, minutes: float) -> None:
        self.end = float(os.environ.setdefault(BEGAN, str(time.time()))) + 60 * minutes

    def left(self) -> float:
        """Seconds."""
        return self.end - time.time()


@contextmanager
def own_group(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process in a group of its own. If the block is left before the process ended, whatever the reason, it is killed with all
    that it started (loader workers, a compiler), so that nothing goes on beside the next measurement. Nothing of a run is lost
    by it but the steps since its last checkpoint."""
    with subprocess.Popen(command, process_group=0, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def machine(device: str) -> dict[str, Any]:
    """The card's or the processor's name, and what runs on it."""
    name = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    return {"device": name, "torch": torch.__version__, "trevsnn": __version__}


def guarded(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a measurement gives, or its ``error``; what it left on the device is freed."""
    try:
        return function()
    except torch.OutOfMemoryError:
        return {"error": OUT_OF_MEMORY}
    except Exception as error:
        return {"error": OUT_OF_MEMORY if "out of memory" in str(error) else sentence(error)}
    finally:
        gc.collect()
        if torch.cuda.is_available() and not is_broken():
            torch.cuda.empty_cache()


def go_on_afresh_if_broken() -> None:
    """Start this command again, for what it has not measured yet, where this process can do so no more: a kernel failed in it,
    or something keeps memory of the device that an earlier measurement took."""
    if torch.cuda.is_available() and (is_broken() or torch.cuda.memory_allocated() > LEFT):
        # What failed is not tried again, or it would be so for ever.
        os.execv(sys.executable, [sys.executable, *(word for word in sys.argv if word != "--retry")])


def is_broken() -> bool:
    """Whether a kernel failed, after which this process can use the device no more."""
    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def sentence(error: BaseException) -> str:
    """The first line of an error that says something."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")[:300]
    return line if isinstance(error, UnavailableError) else f"{type(error).__name__}: {line}"
