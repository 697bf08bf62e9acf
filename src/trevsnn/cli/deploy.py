"""``trevsnn export`` and ``trevsnn stream``: their options, and what they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

FORMATS = ["onnx", "torch", "int8", "onnx-int8"]


def add_deploy_commands(commands: Any) -> None:
    """Add ``export`` and ``stream`` to the commands of ``trevsnn``."""
    export = ArgumentParser(
        exit_on_error=False, allow_abbrev=False, description="Write a trained network in forms that can be deployed."
    )
    export.add_argument("run", type=Path, help="Folder of the run, or a shipped network's name.")
    export.add_argument("--out", type=Path | None, help="Folder to make (default: RUN-exported).")
    export.add_argument("--formats", nargs="*", choices=FORMATS, default=FORMATS, help="Besides safetensors.")
    export.add_argument("--weights", choices=["last", "best"], default="last", help="Of the last or the best epoch.")
    commands.add_subcommand("export", export, help="write a trained network in forms that can be deployed")

    stream = ArgumentParser(
        exit_on_error=False, allow_abbrev=False, description="Play a recording to a network, frame by frame."
    )
    stream.add_argument("run", type=Path, help="Folder of the run, or of its export.")
    stream.add_argument("recording", type=Path)
    stream.add_argument("--weights", choices=["last", "best"], default="last", help="Of the last or the best epoch.")
    stream.add_argument("--picture", type=Path | None, help="File to draw the probabilities over time into.")
    stream.add_argument("--json", action="store_true", help="Print JSON.")
    commands.add_subcommand("stream", stream, help="play a recording to a network, frame by frame")


def run_export(options: Namespace) -> None:
    """Export, and show how close each form is to the network."""
    from trevsnn.deploy.card import folding_sentence
    from trevsnn.deploy.export import export_run

    out = options.out or options.run.with_name(f"{options.run.name}-exported")
    report = export_run(options.run, out, options.weights, options.formats)
    table = Table("form", "largest difference of a logit", "same class", title=f"{out}, {report['checkpoint']}")
    for row in report["comparisons"]:
        table.add_row(row["name"], f"{row['largest']:.1e}", f"{row['same_class']} of {row['items']}")
    console = Console()
    console.print(table)
    console.print(folding_sentence(report["spikes"]), highlight=False)


def run_stream(options: Namespace) -> None:
    """Play a recording, a line a frame as it comes."""
    from trevsnn.deploy.play import play, play_picture

    console = Console(quiet=options.json)
    rows: list[dict[str, Any]] = []
    for row in play(options.run, options.recording, options.weights):
        rows.append(row)
        bar = "█" * round(20 * row["probability"])
        console.print(
            f"frame {row['frame']:>3}  {row['until'] / 1e3:8.1f} ms  {row['class']:<16} {row['probability']:6.1%} {bar:<20} "
            f" {1e3 * row['seconds']:6.1f} ms to compute", highlight=False, soft_wrap=True,
        )  # fmt: skip
    if options.picture is not None:
        play_picture(rows, options.recording.name).savefig(options.picture, dpi=110)
    if options.json:
        print(json.dumps(rows))
