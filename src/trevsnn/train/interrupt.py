"""Ctrl-C and SIGTERM: a training finishes its step, saves, and says how to go on.

Nothing here loads PyTorch before there are several processes, so that a command can be interrupted while it loads.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from trevsnn.data.signals import SIGNALS, started
from trevsnn.errors import Interrupted
from trevsnn.run.folder import RunFolder, resume_command

AT_ONCE = 0.5  # seconds within which a second Ctrl-C is the first one, delivered twice
PEERS = 0.2  # seconds that a signal may come later to this process than to one that ended by it


class _Stop(KeyboardInterrupt):
    """The training ends here; ``orderly`` says that it is between two steps, so that its state can be saved."""

    def __init__(self, *, orderly: bool) -> None:
        super().__init__()
        self.orderly = orderly


class Interruption:
    """A context in which SIGINT and SIGTERM end a training at a good moment, by :class:`trevsnn.errors.Interrupted`.

    Outside of :meth:`deferring` the first signal ends it at once; within it, the next :meth:`check` does. A second Ctrl-C
    ends it at once anywhere. Handlers are set in the main thread alone, not over those that ignore a signal, and those of
    before are put back. Contexts may be nested.

    Args:
        run: the run's folder, where there is one already.

    Attributes:
        run: likewise; what is saved in it is told to the user.
        epochs, steps_per_epoch: of the run, 0 while they are not known.
        number: of the signal that came; 0 for none.
    """

    def __init__(self, run: Path | None = None) -> None:
        self.run, self.epochs, self.steps_per_epoch, self.number = run, 0, 0, 0
        self._came_at = 0.0
        self._deferring = self._saved = False
        self._group: Any = None  # of all processes, on their CPUs
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: set by a library, which Python could not put back
                    self._before[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if self._group is not None and isinstance(error, RuntimeError) and not self.number:
                time.sleep(PEERS)
        except _Stop:
            pass
        finally:
            for number, before in self._before.items():
                signal.signal(number, before)
        lost = isinstance(error, RuntimeError) and self._group is not None  # another process ended before this one
        if isinstance(error, _Stop) or (lost and self.number):
            sentence, step = self._told()
            raise Interrupted(sentence, self.number, self.run, step) from None

    def join(self, processes: int) -> None:
        """From now on decide together with all processes of the run; each of them calls this."""
        if processes > 1:
            import torch.distributed

            self._group = torch.distributed.new_group(backend="gloo")

    @contextlib.contextmanager
    def deferring(self, save: Callable[[], None]) -> Iterator[None]:
        """A context in which signals wait for :meth:`check`; where that ends the training, ``save`` is called first."""
        self._deferring = True
        try:
            yield
        except _Stop as stop:
            if stop.orderly:
                save()
                self._saved = True
                self._highest(0)  # the others wait: an end of one makes torchrun end them all
            raise
        finally:
            self._deferring = False

    def check(self) -> None:
        """End the training here if one of its processes was asked to end. All of them call this at the same moments."""
        asked = self._highest(self.number)
        if asked:  # not set to what it was before: a signal may have come meanwhile
            self.number = asked
            raise _Stop(orderly=True)

    def watched(self, loader: Any) -> Iterable[Any]:
        """The batches of a sized loader, with a :meth:`check` after each, as many in every process."""
        left = self._highest(len(loader))
        for batch in started(loader):
            yield batch
            left -= 1
            self.check()
        for _ in range(left):
            self.check()

    def _highest(self, number: int) -> int:
        if self._group is None:
            return number
        import torch

        highest = torch.tensor(number, device="cpu")
        torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX, self._group)
        return int(highest)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a process begun by this one, which has the handler still
            return
        first = not self.number
        again = not first and number == signal.SIGINT and time.monotonic() - self._came_at > AT_ONCE
        if first:
            self.number, self._came_at = number, time.monotonic()
        if again or (first and not self._deferring):
            raise _Stop(orderly=False)

    def _told(self) -> tuple[str, int]:
        """What is saved and how to go on, and the saved step."""
        if self.run is None or not (self.run / "config.yaml").is_file():
            return "interrupted before the run began: nothing is saved", 0
        command = resume_command(self.run)
        step = RunFolder(self.run).saved_step()
        if not step:
            return f"interrupted before anything was saved: {command} starts from the beginning", 0
        epoch = f" (epoch {-(-step // self.steps_per_epoch)} of {self.epochs})" if self.epochs else ""
        if self._saved:
            return f"interrupted after step {step}{epoch}, saved: go on with {command}", step
        return f"interrupted; saved is step {step}{epoch}: go on with {command}", step


def speaks() -> bool:
    """Whether this is the first process of those that torchrun or SLURM started; known without PyTorch."""
    return os.environ.get("RANK" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_PROCID", "0") == "0"
