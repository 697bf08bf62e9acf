"""Figures within an epoch: steps.csv, and TensorBoard's scalars by training step.

They stay on the device until they are written, so that no training step waits for them.
"""

from __future__ import annotations

import csv
import io
import math
import time
from pathlib import Path

import torch
from torch import Tensor

from trevsnn.errors import RunError
from trevsnn.files import append_to_file, read_file, unwritable, write_file
from trevsnn.train.report import TensorBoard

POINTS = 100  # an epoch, at most, besides its last step
FLUSH_SECONDS = 5.0
MOST = 2**31  # bytes of the file; a row has about a hundred
COLUMNS = ("step", "epoch", "loss", "train_ce", "lr", "gradient_norm")
_HEADER = (",".join(COLUMNS) + "\r\n").encode()


class StepLog:
    """Writes a row for every n-th training step of an epoch and for its last: means since the row before, and the norm of the
    step's whole gradient before it is clipped.

    Args:
        run: the run's folder.
        steps_per_epoch: of the run.
        step: training steps so far. What was written of later ones is dropped: it will be computed again.

    Raises:
        RunError: a file cannot be written.
    """

    def __init__(self, run: Path, steps_per_epoch: int, step: int) -> None:
        self.path, self.steps_per_epoch = run / "steps.csv", steps_per_epoch
        self.every = -(-steps_per_epoch // POINTS)
        self.tensorboard = TensorBoard(run / "tensorboard" / "steps", step + 1)
        self._waiting: list[tuple[int, float, int, Tensor]] = []
        self._flushed_at = time.monotonic()
        self._drop_after(step)

    def is_due(self, step: int) -> bool:
        """Whether there is a row for so many training steps of the run."""
        within = step % self.steps_per_epoch
        return within % self.every == 0

    def add(self, step: int, lr: float, taken: int, sums: Tensor, norm: Tensor) -> None:
        """A row for the step that was taken last.

        Args:
            step: training steps so far.
            lr: of the last one.
            taken: steps since the row before that were not skipped.
            sums: their summed loss and cross entropy (2,), on the device.
            norm: of the last step's gradient, ().

        Raises:
            RunError: what is due to be written cannot be.
        """
        self._waiting.append((step, lr, taken, torch.cat([sums, norm.detach().to(sums.dtype).reshape(1)])))
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write all rows so far. Raises RunError where that fails."""
        self._flushed_at = time.monotonic()
        if not self._waiting:
            return
        numbers = torch.stack([figures for *_, figures in self._waiting]).tolist()  # the device is read once
        rows = []
        for (step, lr, taken, _), (loss, ce, norm) in zip(self._waiting, numbers, strict=True):
            means = [total / taken if taken else math.nan for total in (loss, ce)]
            rows.append(dict(zip(COLUMNS, (step, -(-step // self.steps_per_epoch), *means, lr, norm), strict=True)))
        self._waiting = []
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS)
        try:
            if not self.path.exists():
                text.write(_HEADER.decode())
            table.writerows(rows)
            append_to_file(self.path, text.getvalue().encode())
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.tensorboard.write([(row["step"], {name: row[name] for name in COLUMNS[2:]}) for row in rows])

    def _drop_after(self, step: int) -> None:
        """Leave only whole lines of numbers, of steps up to ``step``, in a new file: to this one is appended."""
        if not self.path.exists() and not self.path.is_symlink():
            return
        try:
            before = read_file(self.path, MOST)
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path} cannot be read ({error}): remove it, and go on.") from error
        kept = [line for line in before.splitlines(keepends=True) if _step_of(line) <= step]
        if kept:
            write_file(self.path, b"".join([_HEADER, *kept]))
        else:
            self.path.unlink()


def _step_of(line: bytes) -> float:
    """The training step of a row; infinite for what is no whole row of numbers."""
    try:
        numbers = [float(number) for number in line.split(b",")]
    except ValueError:
        return math.inf
    return numbers[0] if line.endswith(b"\n") and len(numbers) == len(COLUMNS) else math.inf
