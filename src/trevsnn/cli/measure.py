"""``trevsnn measure``: its options, and its tables on the terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import OpenUnitInterval, PositiveFloat, PositiveInt
from rich.console import Console
from rich.table import Table

from trevsnn.measure.step import PRECISIONS, Step
from trevsnn.network.config import TRevSNNConfig
from trevsnn.reversible import BACKPROP_MODES
from trevsnn.reversible.memory_owner import PARTS
from trevsnn.zoo.presets import PRESETS

ENGINES = ["eager", "folded", "compiled", "onnx", "int8", "onnx-int8", "spikes"]


def add_measure_commands(parser: ArgumentParser) -> None:
    """Add ``memory``, ``speed`` and ``energy`` to the parser of ``trevsnn measure``."""
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
            command.add_argument(
                "--inference", action="store_true", help="Time inference on the CPU, beside torchvision's ResNet-18."
            )
            command.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES, help="Of --inference.")
            command.add_argument("--rates", nargs="+", type=OpenUnitInterval, default=[0.1],
                                 help="Firing rates of hidden neurons at which --engines spikes is timed.")  # fmt: skip
            command.add_argument("--level-rates", nargs="+", type=OpenUnitInterval,
                                 help="Firing rates of the hidden neurons of each level, at which it is timed too.")  # fmt: skip
            command.add_argument("--picture", type=Path | None,
                                 help="File to draw --inference's time against the firing rate into.")  # fmt: skip
        commands.add_subcommand(what, command, help=text)
    text = "Count the operations of a trained network on real data, and their energy."
    energy = ArgumentParser(exit_on_error=False, allow_abbrev=False, description=text)
    energy.add_argument("run", type=Path, help="Folder of a run, or of its export.")
    energy.add_argument("--count", type=PositiveInt, default=64, help="Items of the test or held-out part.")
    energy.add_argument("--weights", choices=["last", "best"], default="last", help="Of the last or the best epoch.")
    energy.add_argument("--pj-per-mac", type=PositiveFloat, default=4.6, help="Picojoules.")
    energy.add_argument("--pj-per-synop", type=PositiveFloat, default=0.9, help="Picojoules.")
    energy.add_argument("--json", action="store_true", help="Print JSON.")
    energy.add_argument("--picture", type=Path | None, help="File to draw the firing rates into.")
    commands.add_subcommand("energy", energy, help=text)


def run_measure(options: Namespace) -> None:
    """Measure what the options ask for, and print it.

    Raises:
        ValueError: an option out of its range.
        UsageError: a device that is not there.
    """
    chosen = options[options.what]
    if options.what == "energy":
        _measure_energy(chosen)
        return
    config = TRevSNNConfig(**{**PRESETS[chosen.model], "slice_bytes": chosen.slice_bytes})
    step = Step(chosen.batch, chosen.size, chosen.precision, chosen.device)
    if chosen.get("inference"):
        _measure_inference(chosen, config)
        return
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

    if options.picture is not None:
        raise ValueError("--picture goes with --inference.")
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


def _measure_inference(options: Namespace, config: TRevSNNConfig) -> None:
    from trevsnn.measure.inference import inference_picture, measure_inference

    if options.picture is not None and "spikes" not in options.engines:
        raise ValueError("--picture draws time against the firing rate: add spikes to --engines.")
    config = replace(config, timesteps=options.timesteps[0])
    rows = measure_inference(
        config, engines=options.engines, size=options.size, batch=options.batch, repeats=options.repeats,
        rates=options.rates, level_rates=options.level_rates,
    )  # fmt: skip
    title = (
        f"{options.model}, T = {config.timesteps}, {options.size} x {options.size}, CPU, "
        f"{rows[0]['threads']} threads, medians"
    )
    if options.picture is not None:
        inference_picture(rows, title).savefig(options.picture, dpi=110)
    if options.json:
        print(json.dumps({"model": options.model, "rows": rows}))
        return
    table = Table(title=title)
    for name in ("engine", "one item, ms", f"items/s in batches of {options.batch}"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for row in rows:
        table.add_row(row["engine"], f"{1000 * row['latency']:.1f}", f"{row['items_per_second']:.1f}")
    Console().print(table)


def _measure_energy(options: Namespace) -> None:
    from trevsnn.measure.energy import measure_energy, rates_picture

    found = measure_energy(options.run, options.weights, options.count, options.pj_per_mac, options.pj_per_synop)
    if options.picture is not None:
        rates_picture(found["rates_LT"], f"Firing rates of the states, {options.run.name}").savefig(
            options.picture, dpi=110
        )
    if options.json:
        print(json.dumps(found))
        return
    console = Console()
    table = Table(title=f"{options.run}, {found['checkpoint']}, a mean item of {found['items']}")
    table.add_column("layer", no_wrap=True)
    for name in ("MACs, dense", "input", "rate", "synops"):
        table.add_column(name, justify="right")
    for op in found["operations"]:
        spiking = op["spiking"]
        table.add_row(
            op["name"], f"{op['macs']:,.0f}", "spikes" if spiking else "numbers", f"{op['rate']:.1%}" if spiking else "",
            f"{op['synops']:,.0f}" if spiking else "",
        )  # fmt: skip
    console.print(table)
    rates = Table("level", *(f"t = {t}" for t in range(len(found["rates_LT"][0]))), title="Firing rates of the states")
    for level, row in enumerate(found["rates_LT"]):
        rates.add_row(str(level), *(f"{rate:.1%}" for rate in row))
    console.print(rates)
    for way, text in _WAYS.items():
        row = found[way]
        console.print(
            f"{text}: {row['macs'] / 1e6:.2f} M MACs and {row['synops'] / 1e6:.2f} M synaptic operations, "
            f"{1e6 * row['joules']:.2f} microjoules", highlight=False, soft_wrap=True,
        )  # fmt: skip
    console.print(
        f"Convention: {found['pj_per_mac']:g} pJ a MAC of a layer whose input is numbers, {found['pj_per_synop']:g} pJ a "
        "synaptic operation (a weight added because of a spike); memory access, neurons and control are not counted.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


_WAYS = {
    "as_computed": "As computed",
    "merged": "With DW1, PW1 and PW2, DW2 each taken as one spike-driven convolution, the field's convention",
}
