"""``trevsnn measure``: its options, and its tables on the terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.table import Table

from trevsnn.measure.step import PRECISIONS, Step
from trevsnn.model import TRevSNNConfig
from trevsnn.owner import PARTS
from trevsnn.reversible import BACKPROP_MODES
from trevsnn.zoo import PRESETS


def add_measure_commands(parser: ArgumentParser) -> None:
    """Add ``memory`` and ``speed`` to the parser of ``trevsnn measure``."""
    commands = parser.add_subcommands(required=True, dest="what")
    for what, text in (
        ("memory", "Count the tensors of one training step, per picture and by part."),
        ("speed", "Time forward and backward passes side by side."),
    ):
        command = ArgumentParser(exit_on_error=False, allow_abbrev=False, description=text)
        command.add_argument("--model", choices=list(PRESETS), default="trevsnn_tiny")
        command.add_argument("--modes", nargs="+", choices=list(BACKPROP_MODES), default=list(BACKPROP_MODES))
        command.add_argument("--timesteps", type=PositiveInt, nargs="+", default=[4], help="T, one or several.")
        command.add_argument("--batch", type=PositiveInt, default=8)
        command.add_argument("--size", type=PositiveInt, default=224, help="Height and width in pixels.")
        command.add_argument("--precision", choices=list(PRECISIONS), default="32-true")
        command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
        command.add_argument(
            "--slice-bytes", type=int | None, help="Of the widest map of a slice of the batch (see the config)."
        )
        command.add_argument("--json", action="store_true", help="Print JSON.")
        if what == "memory":
            command.add_argument("--fake", action="store_true", help="Tensors without data: any size, any device.")
            command.add_argument("--picture", type=Path | None, help="File to draw memory against T into.")
        else:
            command.add_argument("--repeats", type=PositiveInt, default=5)
        commands.add_subcommand(what, command, help=text)


def run_measure(options: Namespace) -> None:
    """Measure what the options ask for, and print it.

    Raises:
        ValueError: an option out of its range.
        UsageError: a device that is not there.
    """
    chosen = options[options.what]
    config = TRevSNNConfig(**{**PRESETS[chosen.model], "slice_bytes": chosen.slice_bytes})
    step = Step(chosen.batch, chosen.size, chosen.precision, chosen.device)
    {"memory": _measure_memory, "speed": _measure_speed}[options.what](chosen, config, step)


def _measure_memory(options: Namespace, config: TRevSNNConfig, step: Step) -> None:
    from trevsnn.measure.memory import measure_slopes, memory_picture

    found = measure_slopes(
        config, step, modes=options.modes, timesteps=sorted(set(options.timesteps)), fake=options.fake
    )
    title = f"{options.model}, {step.batch} pictures of {step.size} x {step.size}, {step.precision}, {step.device}"
    if options.picture is not None:
        memory_picture(found["rows"], title).savefig(options.picture, dpi=110)
    if options.json:
        print(json.dumps({"model": options.model, **found}))
        return
    console = Console()
    console.print(f"{title}{', fake' if options.fake else ''}", highlight=False, soft_wrap=True)
    console.print("MB per picture: kept by the forward pass, and at the peak of a training step\n", highlight=False)
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    parts = [part for part in PARTS if any(row["peak"][part] >= row["peak_total"] / 100 for row in found["rows"])]
    for name in ("backprop", "T", "forward", "peak", *parts):
        table.add_column(name, justify="left" if name == "backprop" else "right")
    for row in found["rows"]:
        bytes_ = [row["after_forward_total"], row["peak_total"], *(row["peak"][part] for part in parts)]
        table.add_row(row["backprop"], str(row["timesteps"]), *(f"{n / 1e6:.2f}" for n in bytes_))
    console.print(table)
    for mode, slope in found["slopes"].items():
        console.print(f"{mode}: {slope / 1e6:+.3f} MB per picture and timestep", highlight=False)
    console.print("Parameters, their gradients and buffers are left out.", highlight=False)


def _measure_speed(options: Namespace, config: TRevSNNConfig, step: Step) -> None:
    from trevsnn.measure.speed import measure_speed

    rows: list[dict[str, Any]] = []
    for timesteps in sorted(set(options.timesteps)):
        rows += measure_speed(replace(config, timesteps=timesteps), step, modes=options.modes, repeats=options.repeats)
    if options.json:
        print(json.dumps({"model": options.model, "rows": rows}))
        return
    table = Table(
        title=f"Median milliseconds per picture\n{options.model}, {step.batch} pictures of {step.size} x {step.size}, "
        f"{step.precision}, {step.device}, {rows[0]['threads']} threads"
    )
    for name in ("backprop", "T", "forward", "backward", "step", "pictures/s", "to autograd"):
        table.add_column(name, justify="left" if name == "backprop" else "right")
    for row in rows:
        times = (f"{1000 * row[name] / step.batch:.1f}" for name in ("forward", "backward", "step"))
        ratio = f"{row['ratio_to_autograd']:.2f}"
        table.add_row(row["backprop"], str(row["timesteps"]), *times, f"{row['pictures_per_second']:.1f}", ratio)
    Console().print(table)
