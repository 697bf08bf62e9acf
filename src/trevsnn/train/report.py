"""What a run reports of an epoch: a line, a row of metrics.csv, and TensorBoard's scalars."""

from __future__ import annotations

import csv
import io
import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
from tensorboard.summary.writer.record_writer import RecordWriter

from trevsnn.files import append_to_file, unwritable

History = list[dict[str, float]]  # a row of metrics for each epoch


def epoch_line(row: Mapping[str, float], epochs: int) -> str:
    """An epoch's row of metrics as a line of text."""
    return (
        f"epoch {row['epoch']:.0f}/{epochs}  loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
        f"val accuracy {row['val_accuracy']:.2%}  lr {row['lr']:.2e}  {row['seconds']:.1f} s"
    )


def metrics_csv(history: History) -> bytes:
    """metrics.csv of all epochs so far. Columns that earlier rows lack come last, and are empty there."""
    names = dict.fromkeys(name for row in history for name in row)
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(names), restval="")
    table.writeheader()
    table.writerows(history)
    return text.getvalue().encode()


class TensorBoard:
    """Rows of metrics as TensorBoard's scalars; every start of a run begins a new file.

    TensorBoard's own writer writes in a thread, where an error such as a full disk would be lost; this one at once.

    Args:
        folder: for the file.
        first: the epoch, or training step, that comes next, from 1; TensorBoard drops what earlier files have from there on.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.path = (
            folder / f"events.out.tfevents.{time.time():.6f}.{os.getpid()}.{secrets.token_hex(4)}"
        )  # nobody foresees it
        self.head = [
            Event(wall_time=time.time(), file_version="brain.Event:2"),
            Event(wall_time=time.time(), step=first, session_log=SessionLog(status=SessionLog.START)),
        ]

    def write(self, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Add rows of metrics, each with its epoch or training step; NaN is left out.

        Raises:
            RunError: it cannot be written.
        """
        events = [Event(wall_time=time.time(), step=step, summary=_summary(row)) for step, row in rows]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            records = RecordWriter(content)
            for part in (*self.head, *events):
                records.write(part.SerializeToString())
            append_to_file(self.path, content.getvalue())
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.head = []


def _summary(row: Mapping[str, float]) -> Summary:
    values = {name: value for name, value in row.items() if name != "epoch" and not math.isnan(value)}
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
