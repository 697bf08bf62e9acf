"""The picture of a run: losses, accuracy and firing rates over the epochs."""

from __future__ import annotations

import math
import time
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trevsnn.drawing import BLUE, COLOURS, GREY, TEXT, VERMILION, chart, name_lines, plain
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
    epochs = [row["epoch"] for row in history]
    marker = "o" if len(history) == 1 else None
    levels = sorted({int(name[10:]) for name in history[0] if name.startswith("rate_level")})
    figure, (loss, accuracy, rates) = chart(12.5, 3.8, [f"level {level}" for level in levels], panels=3)
    for name, label, colour in (("train_ce", "training", VERMILION), ("val_loss", "held out", BLUE)):
        values = [row.get(name, math.nan) for row in history]
        if not all(math.isnan(value) for value in values):
            loss.plot(epochs, values, marker=marker, label=label, color=colour)
    plain(loss, "Cross entropy of the last head", "epoch")
    loss.set(yscale="log")
    objective = loss.twinx()
    objective.plot(epochs, [row["train_loss"] for row in history], ":", marker=marker, color=GREY)
    objective.tick_params(labelsize=TEXT, colors=GREY)
    objective.spines[["top"]].set_visible(False)
    loss.plot([], [], ":", color=GREY, label="objective (right axis)")
    loss.legend(framealpha=0.8, fontsize=TEXT - 2)
    accuracy.plot(epochs, [100 * row["val_accuracy"] for row in history], marker=marker, color=BLUE, label="held out")
    plain(accuracy, "Accuracy on held-out items, %", "epoch")
    lines = []
    for level in levels:
        colour = COLOURS[level % len(COLOURS)]
        for name in (name for name in history[0] if name.startswith("rate_")):
            hidden = name.startswith(f"rate_hidden{level}_")
            if name == f"rate_level{level}" or hidden:
                values = [100 * row.get(name, math.nan) for row in history]
                line = rates.plot(epochs, values, ":" if hidden else "-", marker=marker, color=colour)
                lines += [] if hidden else line
    plain(rates, "Firing rates, %; hidden layers dotted", "epoch")
    name_lines(rates, lines, [f"level {level}" for level in levels])
    for axes in (loss, accuracy, rates):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
