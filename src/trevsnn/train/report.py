"""What a run reports: its progress, metrics.csv, curves.png and TensorBoard's files."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]
from tensorboard.summary.writer.record_writer import RecordWriter

from trevsnn.files import unwritable, write_file

History = list[dict[str, float]]  # a row of metrics for each epoch


class RateColumn(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.0f} items/s")


def progress_bar(console: Console) -> Progress:
    """A bar with count, items per second and remaining time; shown on a terminal only."""
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
    ]
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def epoch_line(row: Mapping[str, float], epochs: int) -> str:
    """An epoch's row of metrics as a line of text."""
    return (
        f"epoch {row['epoch']:.0f}/{epochs}  loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
        f"val accuracy {row['val_accuracy']:.2%}  lr {row['lr']:.2e}  {row['seconds']:.1f} s"
    )


def write_metrics(folder: Path, history: History) -> None:
    """Write metrics.csv and curves.png of all epochs so far.

    Raises:
        RunError: they cannot be written.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(history[0]))
    table.writeheader()
    table.writerows(history)
    write_file(folder / "metrics.csv", text.getvalue().encode())
    picture = io.BytesIO()
    curves(history).savefig(picture, format="png", dpi=110)
    write_file(folder / "curves.png", picture.getvalue())


class TensorBoard:
    """Rows of metrics as TensorBoard's scalars; every start of a run begins a new file.

    TensorBoard's own writer writes in a thread, where an error such as a full disk would be lost; this one at once.

    Args:
        folder: for the file.
        first_epoch: the epoch that comes next, from 1; TensorBoard drops what earlier files have from there on.
    """

    def __init__(self, folder: Path, first_epoch: int) -> None:
        self.path = folder / f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"
        self.head = [
            Event(wall_time=time.time(), file_version="brain.Event:2"),
            Event(wall_time=time.time(), step=first_epoch, session_log=SessionLog(status=SessionLog.START)),
        ]

    def write(self, row: Mapping[str, float]) -> None:
        """Add an epoch's row of metrics.

        Raises:
            RunError: it cannot be written.
        """
        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "epoch"]
        event = Event(wall_time=time.time(), step=int(row["epoch"]), summary=Summary(value=values))
        try:
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("ab") as file:
                records = RecordWriter(file)
                for part in (*self.head, event):
                    records.write(part.SerializeToString())
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.head = []


def curves(history: History) -> Figure:
    """A picture of loss, accuracy and firing rates over the epochs."""
    figure = Figure(figsize=(11, 3.4))
    loss, accuracy, rates = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.06, right=0.98, bottom=0.16, top=0.9, wspace=0.22)
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(history) == 1 else None
    for name, label in (("train_loss", "training"), ("val_loss", "held out")):
        loss.plot(epochs, [row[name] for row in history], marker=marker, label=label)
    loss.set(title="Loss", xlabel="epoch", yscale="log")
    accuracy.plot(epochs, [100 * row["val_accuracy"] for row in history], marker=marker, label="held out")
    accuracy.set(title="Accuracy, %", xlabel="epoch")
    for name in (n for n in history[0] if n.startswith("rate_")):
        kind, number = ("level", name.removeprefix("rate_level")) if "level" in name else ("hidden", name[11:])
        rates.plot(
            epochs, [100 * row[name] for row in history], f"C{number[0]}" + ("-" if kind == "level" else ":"),
            marker=marker, label=f"level {number}" if kind == "level" else None,
        )  # fmt: skip
    rates.set(title="Mean firing rate, %; hidden layers dotted", xlabel="epoch")
    for axes in (loss, accuracy, rates):
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    return figure
