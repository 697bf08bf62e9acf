"""``trevsnn evaluate`` and ``trevsnn predict``."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps
from pathlib import Path

from rich.console import Console
from rich.table import Table

from trevsnn.data.config import Split
from trevsnn.data.overrides import AS_TRAINED, DataOverrides
from trevsnn.deploy import Engine
from trevsnn.run.config import Accelerator
from trevsnn.run.folder import Weights


def evaluate(
    run: Path,
    *,
    split: Split | None = None,
    weights: Weights = "last",
    accelerator: Accelerator = "auto",
    engine: Engine = "eager",
    data: DataOverrides = AS_TRAINED,
    json: bool = False,
) -> None:
    """Measure a trained run's accuracy.

    Args:
        run: Folder of the run or its export, or digits, fashion-mnist, cifar-10, tiny-imagenet or
            n-mnist, which come trained.
        split: Part of the data (default: test, else val).
        weights: Of the last or the best epoch.
        accelerator: Device to compute on.
        engine: How to compute.
        data: Own data and size.
        json: Print JSON.
    """
    from trevsnn.deploy.inference import evaluate_run

    result = evaluate_run(run, split, weights, accelerator, engine, data)
    if json:
        print(dumps(result))
        return
    table = Table(title=f"{result['run']}, {result['checkpoint']}, {result['items']} {result['split']} items")
    levels = [f"rate, level {i}" for i in range(len(result["firing_rates"]))]
    for name in ("accuracy", "loss", *levels):
        table.add_column(name, justify="right")
    table.add_row(f"{result['accuracy']:.2%}", f"{result['loss']:.4f}", *(f"{r:.1%}" for r in result["firing_rates"]))
    Console().print(table)


def predict(
    run: Path,
    files: Sequence[Path],
    *,
    weights: Weights = "last",
    accelerator: Accelerator = "auto",
    engine: Engine = "eager",
    data: DataOverrides = AS_TRAINED,
    json: bool = False,
) -> None:
    """Classify pictures or recordings with a trained run.

    Args:
        run: Folder of the run or its export, or digits, fashion-mnist, cifar-10, tiny-imagenet or
            n-mnist, which come trained.
        files: Pictures, or recordings for a run on events; of a recording, a run on pieces takes the first.
        weights: Of the last or the best epoch.
        accelerator: Device to compute on.
        engine: How to compute.
        data: Own data and size.
        json: Print JSON.
    """
    from trevsnn.deploy.inference import predict_run

    rows = predict_run(run, list(files), weights, accelerator, engine, data)
    if json:
        print(dumps(rows))
        return
    table = Table("file", "class", "probability")
    for row in rows:
        table.add_row(row["file"], row["class"], f"{row['probability']:.1%}")
    Console().print(table)
