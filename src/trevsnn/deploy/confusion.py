"""Which classes a network takes for which: figures of each class, and the confusion matrix as CSV and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from trevsnn.drawing import TEXT, short
from trevsnn.errors import UsageError
from trevsnn.files import figure_bytes, write_file
from trevsnn.terminal import visible

TABLE, PICTURE = "confusion.csv", "confusion.png"
NUMBERED = 20  # classes up to which the picture has numbers
NAMED = 150  # and up to which it has the name of every class
LONGEST = 24  # characters of a name in the picture


def class_rows(classes: Sequence[str], confusion_KK: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Figures of every class.

    Args:
        classes: their names.
        confusion_KK: items by their class (rows) and the one they were taken for (columns).

    Returns:
        For each class its name ``class``; the number of its ``items``; ``recall``, the share of them that were taken for it,
        which is the class's accuracy; ``precision``, the share of its items among all that were taken for it; and
        ``mistaken_for``, the other class they were taken for most often, ``mistaken`` times. A share of nothing is None,
        and so is ``mistaken_for`` where there was no mistake.
    """
    rows = []
    for label, name in enumerate(classes):
        right, wrong_K = int(confusion_KK[label, label]), confusion_KK[label].copy()
        items, taken = int(wrong_K.sum()), int(confusion_KK[:, label].sum())
        wrong_K[label] = 0
        other = int(wrong_K.argmax())
        mistaken = int(wrong_K[other])
        rows.append({
            "class": name, "items": items, "recall": right / items if items else None,
            "precision": right / taken if taken else None, "mistaken_for": classes[other] if mistaken else None, "mistaken": mistaken,
        })  # fmt: skip
    return rows


def confusion_files(place: Path) -> tuple[Path | None, Path | None]:
    """The CSV file and the picture that ``place`` asks for, and their folder made: one of them where it ends in .csv or
    .png, else both in a folder of that name.

    Raises:
        UsageError: the folder cannot be made, a file is in its place, or its name is one of another kind of file.
    """
    single = place.suffix.lower() if not place.is_dir() else ""
    if single not in ("", ".csv", ".png") and guess_type(place.name)[0] is not None:
        raise UsageError(f"{place} is neither a folder nor a file that ends in .csv or .png: give one of these.")
    folder = place.parent if single in (".csv", ".png") else place
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made ({error.strerror}): give a folder, or a file that ends in .csv or .png."
        ) from error
    if single in (".csv", ".png"):
        return (place, None) if single == ".csv" else (None, place)
    return folder / TABLE, folder / PICTURE


def write_confusion(
    place: Path, classes: Sequence[str], confusion_KK: Sequence[Sequence[int]], title: str
) -> list[Path]:
    """Write the matrix as CSV, with the names of the classes in the first line (what items were taken for) and the first
    column (what they are), and as a picture.

    Args:
        place: as :func:`confusion_files` takes it.
        classes, confusion_KK: as in :func:`class_rows`.
        title: of the picture.

    Returns:
        The files.

    Raises:
        UsageError: as :func:`confusion_files`.
        RunError: a file cannot be written.
    """
    table, picture = confusion_files(place)
    if table is not None:
        text = io.StringIO()
        lines = csv.writer(text)
        lines.writerow(["class", *classes])
        lines.writerows([name, *row] for name, row in zip(classes, confusion_KK, strict=True))
        write_file(table, text.getvalue().encode("utf-8", "backslashreplace"))
    if picture is not None:
        write_file(picture, figure_bytes(confusion_picture(classes, np.array(confusion_KK), title)))
    return [path for path in (table, picture) if path is not None]


def confusion_picture(classes: Sequence[str], confusion_KK: NDArray[np.int64], title: str) -> Figure:
    """The matrix as shares of each class's items: a square a pair, with numbers of items where there are few classes.

    Args:
        classes, confusion_KK: as in :func:`class_rows`.
        title: of the picture.
    """
    count = len(classes)
    few = count <= NUMBERED
    side = min(max(0.5 * count, 3.0) if few else 0.16 * count + 6, 26)  # inches
    names = [short(name, LONGEST) for name in classes]
    size = TEXT if few else 8 if count <= 60 else 6.5
    longest = max(map(len, names))
    room = min((0.12 if few else 0.085) * longest, 2.9)
    figure = Figure(figsize=(side + room + 1.9, side + room + 0.9), layout="constrained")
    axes = figure.subplots()
    items_K1 = confusion_KK.sum(1, keepdims=True)
    shares_KK = confusion_KK / np.maximum(items_K1, 1)
    # By the root of the share, so that a few mistakes are seen.
    image = axes.imshow(shares_KK, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    ticks = range(0, count, -(-count // NAMED))
    shown = [names[i] for i in ticks]
    axes.set_xticks(ticks, labels=shown, rotation=90 if longest > 2 or not few else 0, fontsize=size, parse_math=False)
    axes.set_yticks(ticks, labels=shown, fontsize=size, parse_math=False)
    axes.set_xlabel("taken for", fontsize=TEXT)
    axes.set_ylabel("class", fontsize=TEXT)
    axes.set_title(visible(title), fontsize=TEXT, wrap=True, parse_math=False)
    if few:
        for row, column in np.ndindex(count, count):
            number = int(confusion_KK[row, column])
            if number:
                colour = "white" if shares_KK[row, column] > 0.35 else "black"
                text = str(number)
                axes.text(column, row, text, ha="center", va="center", fontsize=min(TEXT, 44 / len(text)), color=colour)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, ticks=[0, 0.01, 0.1, 0.25, 0.5, 1], format=PercentFormatter(1))
    bar.set_label("share of the class's items", fontsize=TEXT)
    bar.ax.tick_params(labelsize=TEXT)
    return figure
