"""The picture of a run: losses, accuracy and firing rates over the epochs."""

from __future__ import annotations

import math
import time
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trevsnn.files import figure_bytes, write_file
from trevsnn.train.report import History, metrics_csv

DRAWN_EVERY = 10.0  # seconds


class EpochFiles:
    """metrics.csv, which is written after every epoch, and curves.png, which takes most of a second to draw.

    It is drawn after an epoch where that is ``DRAWN_EVERY`` seconds ago, and by :meth:`draw`.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._drawn_at = time.monotonic()
        self._not_drawn: History = []

    def write(self, history: History) -> None:
        """Write the files of all epochs so far.

        Raises:
            RunError: they cannot be written.
        """
        write_file(self.folder / "metrics.csv", metrics_csv(history))
        self._not_drawn = history
        if time.monotonic() - self._drawn_at >= DRAWN_EVERY:
            self.draw()

    def draw(self) -> None:
        """Draw the epochs that are not drawn yet.

        Raises:
            RunError: the picture cannot be written.
        """
        if not self._not_drawn:
            return
        write_file(self.folder / "curves.png", figure_bytes(curves(self._not_drawn)))
        self._drawn_at, self._not_drawn = time.monotonic(), []


def curves(history: History) -> Figure:
    """A picture of loss, accuracy and firing rates over the epochs.

    Training and held-out loss are the plain cross entropy of the last head; the objective, which has other terms, has an
    axis of its own. Rows of earlier versions, and of mixed batches, have no such training loss.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, accuracy, rates = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(history) == 1 else None
    for name, label in (("train_ce", "training"), ("val_loss", "held out")):
        values = [row.get(name, math.nan) for row in history]
        if not all(math.isnan(value) for value in values):
            loss.plot(epochs, values, marker=marker, label=label)
    loss.set(title="Cross entropy of the last head", xlabel="epoch", yscale="log")
    objective = loss.twinx()
    objective.plot(epochs, [row["train_loss"] for row in history], "k:", marker=marker, alpha=0.4)
    loss.plot([], [], "k:", alpha=0.4, label="objective (right axis)")
    accuracy.plot(epochs, [100 * row["val_accuracy"] for row in history], marker=marker, label="held out")
    accuracy.set(title="Accuracy, %", xlabel="epoch")
    for name in (n for n in history[0] if n.startswith("rate_")):
        kind, number = ("level", name.removeprefix("rate_level")) if "level" in name else ("hidden", name[11:])
        rates.plot(
            epochs, [100 * row.get(name, math.nan) for row in history], f"C{number[0]}" + ("-" if kind == "level" else ":"),
            marker=marker, label=f"level {number}" if kind == "level" else None,
        )  # fmt: skip
    rates.set(title="Firing rates, %; hidden layers dotted", xlabel="epoch")
    for axes in (loss, accuracy, rates):
        axes.legend(framealpha=0.6, fontsize="small")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
