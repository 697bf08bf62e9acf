"""``trevsnn measure``: memory, speed and energy, as tables on the terminal or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from trevsnn.backprop import BACKPROP_MODES, Backprop
from trevsnn.cli.parser import refusals_are_usage_errors
from trevsnn.cli.plan import config_to_plan, named_config, one_to_plan, print_plan
from trevsnn.cli.tables import add_columns, inference_table, operations_table, rates_table, speed_table
from trevsnn.cli.types import OpenUnitInterval, PictureSize, PositiveFloat, PositiveInt
from trevsnn.data.overrides import AS_TRAINED, DataOverrides
from trevsnn.errors import UsageError
from trevsnn.files import check_picture_place, write_picture
from trevsnn.measure import MEASURED_ENGINES, MeasuredEngine, MeasuredPrecision
from trevsnn.network.config import Alphas, Links, TRevSNNConfig
from trevsnn.run.folder import Weights
from trevsnn.sizes import size_text
from trevsnn.terminal import Terminal
from trevsnn.zoo.presets import PRESETS, Preset


def _config(model: Preset, **changes: Any) -> TRevSNNConfig:
    with refusals_are_usage_errors():
        return TRevSNNConfig(**{**PRESETS[model], **changes})


def _keeping(keep: str | None) -> str:
    return "" if keep is None else f", exact keeping {keep}"


def memory(
    *,
    model: Preset = "trevsnn_tiny",
    modes: Sequence[Backprop] = BACKPROP_MODES,
    timesteps: Sequence[PositiveInt] = (4,),
    batch: PositiveInt = 8,
    size: PictureSize = 224,
    precision: MeasuredPrecision = "32-true",
    device: Literal["cpu", "cuda"] = "cpu",
    slice_bytes: PositiveInt | None = None,
    keep: str | None = None,
    links: Links = "adjacent",
    alphas: Alphas = "learned",
    config: Path | None = None,
    recipe: str | None = None,
    run: Path | None = None,
    fits: str | None = None,
    processes: PositiveInt = 1,
    fake: bool = False,
    picture: Path | None = None,
    json: bool = False,
) -> None:
    """Count the tensors of one training step, per picture and by part.

    Args:
        model: Preset.
        modes: Backward passes.
        timesteps: T, one or several.
        batch: Pictures of a training step.
        size: Side of a square in pixels, or height and width.
        precision: Of the training step.
        device: To train on.
        slice_bytes: Of the widest map of a slice of the batch (see the config).
        keep: Memory that exact may take to compute less again: 4GB, 12MB/item, 30%.
        links: From the adjacent level above, or from all levels above.
        alphas: Learned, or all one: left out.
        config: File of a run's config, which says network, T, size, batch and precision.
        recipe: Name of a recipe, likewise.
        run: Folder of a run, likewise.
        fits: Memory of a device, 24GB: print the largest batch whose whole training step fits.
        processes: With --fits, that share a training step, each with a device.
        fake: Tensors without data: any size, any device.
        picture: File to draw memory against T into.
        json: Print JSON.
    """
    named = named_config(memory, locals())
    if named is not None:
        model, network, timesteps, batch, size, precision, _ = named
    else:
        network = _config(model, slice_bytes=slice_bytes, keep=keep, links=links, alphas=alphas)
    if fits is None and processes > 1:
        raise UsageError("--processes goes with --fits.")
    if fits is not None:
        if fake or picture is not None:
            raise UsageError("--fake and --picture are not for --fits, which counts as it needs: leave them out.")
        whole = config_to_plan(network, size, precision) if named is None else named.config
        print_plan(model, one_to_plan(whole, modes, timesteps), fits, device, processes, json)
        return
    check_picture_place(picture)
    from trevsnn.measure.memory import measure_slopes, memory_picture
    from trevsnn.measure.step import TrainingStep
    from trevsnn.reversible.memory_owner import OWNERS

    step = TrainingStep(batch, size, precision, device)
    with refusals_are_usage_errors():
        result = measure_slopes(network, step, modes=modes, timesteps=sorted(set(timesteps)), fake=fake)
    rows = result["rows"]
    title = f"{model}, {batch} pictures of {size_text(size)}, {precision}, {device}{_keeping(network.keep)}"
    if picture is not None:
        write_picture(memory_picture(rows, title), picture)
    if json:
        print(dumps({"model": model, **result}))
        return
    console = Terminal()
    console.print(f"{title}{', fake' if fake else ''}", soft_wrap=True)
    console.print("MB per picture: kept by the forward pass, and at the peak of a training step\n")
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    parts = [part for part in OWNERS if any(row["peak"][part] >= row["peak_total"] / 100 for row in rows)]
    add_columns(table, "backprop", "T", "forward", "peak", *parts)
    for row in rows:
        bytes_ = [row["after_forward_total"], row["peak_total"], *(row["peak"][part] for part in parts)]
        table.add_row(row["backprop"], str(row["timesteps"]), *(f"{n / 1e6:.2f}" for n in bytes_))
    console.print(table)
    for mode, slope in result["slopes"].items():
        console.print(f"{mode}: {slope / 1e6:+.3f} MB per picture and timestep")
    console.print("Parameters, their gradients and buffers are left out.")


def speed(
    *,
    model: Preset = "trevsnn_tiny",
    modes: Sequence[Backprop] = BACKPROP_MODES,
    timesteps: Sequence[PositiveInt] = (4,),
    batch: PositiveInt = 8,
    size: PictureSize = 224,
    precision: MeasuredPrecision = "32-true",
    device: Literal["cpu", "cuda"] = "cpu",
    slice_bytes: PositiveInt | None = None,
    keep: str | None = None,
    links: Links = "adjacent",
    alphas: Alphas = "learned",
    config: Path | None = None,
    recipe: str | None = None,
    run: Path | None = None,
    repeats: PositiveInt = 5,
    inference: bool = False,
    engines: Sequence[MeasuredEngine] = MEASURED_ENGINES,
    rates: Sequence[OpenUnitInterval] = (0.1,),
    level_rates: Sequence[OpenUnitInterval] | None = None,
    picture: Path | None = None,
    json: bool = False,
) -> None:
    """Time forward and backward passes side by side.

    Args:
        model: Preset.
        modes: Backward passes.
        timesteps: T, one or several.
        batch: Pictures of a training step, or at a time in inference.
        size: Side of a square in pixels, or height and width.
        precision: Of the training step.
        device: To train on.
        slice_bytes: Of the widest map of a slice of the batch (see the config).
        keep: Memory that exact may take to compute less again: 4GB, 12MB/item, 30%.
        links: From the adjacent level above, or from all levels above.
        alphas: Learned, or all one: left out.
        config: File of a run's config, which says network, T, size, batch and precision.
        recipe: Name of a recipe, likewise.
        run: Folder of a run, likewise.
        repeats: Of every measurement; the median counts.
        inference: Time inference on the CPU, beside torchvision's ResNet-18.
        engines: Of --inference.
        rates: Firing rates of hidden neurons at which --engines spikes is timed.
        level_rates: Firing rates of the hidden neurons of each level, at which it is timed too.
        picture: File to draw --inference's time against the firing rate into.
        json: Print JSON.
    """
    named = named_config(speed, locals())
    if inference and picture is not None and "spikes" not in engines:
        raise UsageError("--picture draws time against the firing rate: add spikes to --engines.")
    if picture is not None and not inference:
        raise UsageError("--picture goes with --inference.")
    check_picture_place(picture)
    if inference and keep is not None:
        raise UsageError("--keep is of training steps: leave it out with --inference.")
    if named is not None:
        model, network, timesteps, batch, size, precision, _ = named
    else:
        network = _config(model, slice_bytes=slice_bytes, keep=keep, links=links, alphas=alphas)
    if inference:
        from trevsnn.measure.inference import inference_picture, measure_inference

        network = replace(network, timesteps=timesteps[0])
        with refusals_are_usage_errors():
            rows = measure_inference(
                network, engines=engines, size=size, batch=batch, repeats=repeats, rates=rates, level_rates=level_rates
            )
        threads = f"{rows[0]['threads']} threads"
        title = f"{model}, T = {network.timesteps}, {size_text(size)}, CPU, {threads}, medians"
        if picture is not None:
            write_picture(inference_picture(rows, title), picture)
        table = inference_table(rows, title, batch)
    else:
        from trevsnn.measure.speed import measure_speed
        from trevsnn.measure.step import TrainingStep

        step = TrainingStep(batch, size, precision, device)
        rows = []
        for t in sorted(set(timesteps)):
            rows += measure_speed(replace(network, timesteps=t), step, modes=modes, repeats=repeats)
        what = f"{model}, {batch} pictures of {size_text(size)}, {precision}, {device}, {rows[0]['threads']} threads"
        table = speed_table(rows, f"Median milliseconds per picture\n{what}{_keeping(network.keep)}", batch)
    if json:
        print(dumps({"model": model, "rows": rows}))
    else:
        Terminal().print(table)


def energy(
    run: Path,
    *,
    count: PositiveInt = 64,
    weights: Weights = "last",
    pj_per_mac: PositiveFloat = 4.6,
    pj_per_synop: PositiveFloat = 0.9,
    data: DataOverrides = AS_TRAINED,
    picture: Path | None = None,
    json: bool = False,
) -> None:
    """Count the operations of a trained network on real data, and their energy.

    Args:
        run: Folder of a run, or of its export.
        count: Items of the test or held-out part.
        weights: Of the last or the best epoch.
        pj_per_mac: Picojoules of a multiply-accumulate.
        pj_per_synop: Picojoules of a synaptic operation.
        data: Own data and size.
        picture: File to draw the firing rates into.
        json: Print JSON.
    """
    check_picture_place(picture)
    from trevsnn.measure.energy import measure_energy, rates_picture

    result = measure_energy(run, weights, count, pj_per_mac, pj_per_synop, data)
    if picture is not None:
        write_picture(rates_picture(result["rates_LT"], f"Firing rates, {run.name}"), picture)
    if json:
        print(dumps(result))
        return
    console = Terminal()
    console.print(operations_table(result, f"{run}, {result['checkpoint']}, a mean item of {result['items']}"))
    console.print(rates_table(result["rates_LT"]))
    for way, text in _WAYS.items():
        row = result[way]
        console.print(
            f"{text}: {row['macs'] / 1e6:.2f} M MACs and {row['synops'] / 1e6:.2f} M synaptic operations, "
            f"{1e6 * row['joules']:.2f} microjoules", soft_wrap=True,
        )  # fmt: skip
    console.print(
        f"Convention: {pj_per_mac:g} pJ a MAC of a layer whose input is numbers, {pj_per_synop:g} pJ a synaptic operation "
        "(a weight added because of a spike); memory access, neurons and control are not counted.",
        soft_wrap=True,
    )  # fmt: skip


_WAYS = {
    "as_computed": "As computed",
    "merged": "With DW1, PW1 and PW2, DW2 each taken as one spike-driven convolution, the field's convention",
}
