"""``trevsnn export`` and ``trevsnn stream``."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Any

from rich.table import Table

from trevsnn.data.overrides import AS_TRAINED, DataOverrides
from trevsnn.deploy import Format
from trevsnn.run.folder import Weights
from trevsnn.terminal import Terminal


def export(
    run: Path,
    *,
    out: Path | None = None,
    formats: tuple[Format, ...] | None = None,
    weights: Weights = "last",
    compact: bool = False,
    data: DataOverrides = AS_TRAINED,
) -> None:
    """Write a trained network in forms that can be deployed.

    Args:
        run: Folder of the run, or a shipped network's name.
        out: Folder to make (default: RUN-exported).
        formats: Besides safetensors (default: all).
        weights: Of the last or the best epoch.
        compact: Round the network's weights to 8 bits and store them so, in a quarter of the bytes.
        data: Own data and size.
    """
    from trevsnn.deploy.card import folding_sentence
    from trevsnn.deploy.export import export_run

    out = out or run.with_name(f"{run.name}-exported")
    report = export_run(run, out, weights, formats, compact, data)
    table = Table("form", "largest difference of a logit", "same class", title=f"{out}, {report['checkpoint']}")
    for row in report["comparisons"]:
        table.add_row(row["name"], f"{row['largest']:.1e}", f"{row['same_class']} of {row['items']}")
    console = Terminal()
    console.print(table)
    console.print(f"Compared on {report['items']}.")
    console.print(folding_sentence(report["spikes"]))


def stream(
    run: Path, recording: Path, *, weights: Weights = "last", picture: Path | None = None, json: bool = False
) -> None:
    """Play a recording to a network, frame by frame.

    Args:
        run: Folder of the run or its export, or n-mnist, which comes trained.
        recording: File of an event camera.
        weights: Of the last or the best epoch.
        picture: File to draw the probabilities over time into.
        json: Print JSON.
    """
    from trevsnn.deploy.play import play, play_picture

    console = Terminal(quiet=json)
    rows: list[dict[str, Any]] = []
    for row in play(run, recording, weights):
        rows.append(row)
        bar = "█" * round(20 * row["probability"])
        console.print(
            f"frame {row['frame']:>3}  {row['until'] / 1e3:8.1f} ms  {row['class']:<16} {row['probability']:6.1%} {bar:<20} "
            f" {1e3 * row['seconds']:6.1f} ms to compute", soft_wrap=True,
        )  # fmt: skip
    if picture is not None:
        play_picture(rows, recording.name).savefig(picture, dpi=110)
    if json:
        print(dumps(rows))
