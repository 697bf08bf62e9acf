"""``trevsnn evaluate`` and ``trevsnn predict``."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Any

from rich.progress import track
from rich.table import Table

from trevsnn.cli.types import PositiveInt
from trevsnn.data.config import Split
from trevsnn.data.overrides import AS_TRAINED, DataOverrides
from trevsnn.deploy import Engine
from trevsnn.errors import RunError, UsageError
from trevsnn.files import check_picture_place, write_picture
from trevsnn.run.config import Accelerator
from trevsnn.run.folder import Weights
from trevsnn.terminal import Terminal

MANY = 30  # classes, of which not all are printed
WORST = 20  # how many are then


def evaluate(
    run: Path,
    *,
    split: Split | None = None,
    weights: Weights = "last",
    accelerator: Accelerator = "auto",
    engine: Engine = "eager",
    data: DataOverrides = AS_TRAINED,
    confusion: Path | None = None,
    json: bool = False,
) -> None:
    """Measure a trained run's accuracy, of all items and by class.

    Args:
        run: Folder of the run or its export, or digits or n-mnist, which come trained, or fashion-mnist, cifar-10 or
            tiny-imagenet of trevsnn-networks.
        split: Part of the data (default: test, else val).
        weights: Of the last or the best epoch.
        accelerator: Device to compute on.
        engine: How to compute.
        data: Own data and size.
        confusion: Folder to write the confusion matrix to, as confusion.csv and confusion.png; or one file .csv or .png.
        json: Print JSON, of all classes and with the confusion matrix.
    """
    from trevsnn.deploy.confusion import confusion_files, write_confusion
    from trevsnn.deploy.inference import evaluate_run
    from trevsnn.train.processes import is_first

    if confusion is not None:
        confusion_files(confusion)  # a place that cannot be is refused before anything is computed

    result = evaluate_run(run, split, weights, accelerator, engine, data)
    if not is_first():
        return
    title = f"{result['run']}, {result['checkpoint']}, {result['items']} {result['split']} items"
    if result["unreadable"]:
        title += f", {result['unreadable']} of them unreadable and left out"
    if confusion is not None:
        write_confusion(confusion, [row["class"] for row in result["classes"]], result["confusion"], title)
    if json:
        print(dumps(result))
        return
    console = Terminal()
    console.print(_totals(result, title))
    shown = _worst(result["classes"])
    console.print(_class_table(shown))
    if len(shown) < len(result["classes"]):
        more = len(result["classes"]) - len(shown)
        console.print(f"The worst {len(shown)}, and {more} more: --json or --confusion FOLDER.", soft_wrap=True)


def predict(
    run: Path,
    files: Sequence[Path],
    *,
    top: PositiveInt | None = None,
    batch: PositiveInt = 64,
    weights: Weights = "last",
    accelerator: Accelerator = "auto",
    engine: Engine = "eager",
    data: DataOverrides = AS_TRAINED,
    spikes: Path | None = None,
    json: bool = False,
) -> None:
    """Classify pictures or recordings with a trained run.

    Args:
        run: Folder of the run or its export, or digits or n-mnist, which come trained, or fashion-mnist, cifar-10 or
            tiny-imagenet of trevsnn-networks.
        files: Pictures, or recordings for a run on events, or folders of them; of a recording, a run on pieces takes the first.
            Their names count from data.root, if it is given: "." is all that it holds.
        top: How many of the likeliest classes to print (default: one, and in JSON all).
        batch: How many files to hold in memory at a time.
        weights: Of the last or the best epoch.
        accelerator: Device to compute on.
        engine: How to compute.
        data: Own data and size.
        spikes: File to draw the spikes of one picture or recording through the network into.
        json: Print JSON.

    Raises:
        UsageError: spikes are to be drawn of several files, or there is no place for them.
        RunError: a file cannot be read; the others are printed before.
    """
    from trevsnn.deploy.inference import Predictor

    check_picture_place(spikes)
    predictor = Predictor(run, weights, accelerator, engine, data)
    every = predictor.files(files)
    if spikes is not None and len(every) != 1:
        raise UsageError(f"--spikes draws one picture or recording, and {len(every)} files are given: give one.")
    bar = Terminal(stderr=True)
    found = track(
        predictor.predict(every, batch, top or (None if json else 1)), "classifying", len(every), console=bar,
        transient=True, disable=len(every) <= batch or not bar.is_terminal,
    )  # fmt: skip
    rows, errors = [], []
    for prediction in found:
        if prediction.error is not None:
            errors.append(prediction.error)
        else:
            rows.append(prediction)
    if spikes is not None and rows:
        write_picture(predictor.spikes(every[0]), spikes)
    if json:
        print(dumps([_prediction(row.file, row.classes) for row in rows]))
    elif rows:
        table = Table()
        for name in ("file", "class"):
            table.add_column(name, overflow="fold")  # a name is shown whole, however narrow the terminal is
        table.add_column("probability", justify="right")
        for row in rows:
            for place, (name, share) in enumerate(row.classes.items()):
                table.add_row("" if place else str(row.file), name, f"{share:.1%}")
        Terminal().print(table)
    if errors:
        raise RunError(_unreadable(errors, len(every)))


def _prediction(file: Path, classes: dict[str, float]) -> dict[str, Any]:
    best = next(iter(classes))
    return {"file": str(file), "class": best, "probability": classes[best], "probabilities": classes}


def _unreadable(errors: Sequence[str], count: int) -> str:
    """One sentence of all files that cannot be read."""
    if len(errors) == 1:
        return errors[0]
    more = f"; and {len(errors) - WORST} more" if len(errors) > WORST else ""
    return f"{len(errors)} of {count} files cannot be read: {'; '.join(e.rstrip('.') for e in errors[:WORST])}{more}."


def _totals(result: dict[str, Any], title: str) -> Table:
    table = Table(title=title)
    levels = {f"rate, level {i}": f"{rate:.1%}" for i, rate in enumerate(result["firing_rates"])}
    top5 = {} if result["top5"] is None else {"top-5": f"{result['top5']:.2%}"}
    row = {"accuracy": f"{result['accuracy']:.2%}", **top5, "loss": f"{result['loss']:.4f}", **levels}
    for name in row:
        table.add_column(name, justify="right")
    table.add_row(*row.values())
    return table


def _worst(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """All classes, or of many those that are recognised worst, the worst first."""
    if len(rows) <= MANY:
        return rows
    return sorted((row for row in rows if row["items"]), key=lambda row: row["recall"])[:WORST]


def _class_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table()
    table.add_column("class", overflow="fold")
    for name in ("items", "accuracy", "precision"):
        table.add_column(name, justify="right")
    table.add_column("most often taken for", overflow="fold")
    table.add_column("times", justify="right")
    for row in rows:
        shares = ("" if row[name] is None else f"{row[name]:.1%}" for name in ("recall", "precision"))
        other = ("", "") if row["mistaken_for"] is None else (row["mistaken_for"], str(row["mistaken"]))
        table.add_row(row["class"], str(row["items"]), *shares, *other)
    return table
