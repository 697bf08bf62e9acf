"""What is trained: a few lines before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning_fabric import Fabric
from rich.console import Console
from torch import nn

from trevsnn.data.part import Part
from trevsnn.data.sets import is_event
from trevsnn.run.config import RunConfig
from trevsnn.terminal import say


def announce(
    console: Console, config: RunConfig, fabric: Fabric, model: nn.Module, data: Mapping[str, Part], run: Path
) -> None:
    """Print lines on data, network, how it is trained, and the run's folder.

    Args:
        console: for them.
        config: of the run.
        fabric: its processes.
        model: the network.
        data: its parts.
        run: the folder.
    """
    train = data["train"]
    net, (height, width) = config.model, config.data.size_HW
    kind = "recordings" if is_event(config.data) else "pictures"
    parameters = sum(p.numel() for p in model.parameters())
    parts = f" in {config.accumulate} parts" if config.accumulate > 1 else ""
    where = f"{fabric.world_size} processes, {fabric.device.type}" if fabric.world_size > 1 else str(fabric.device)
    steps = len(train) // config.batch_size
    frozen = f", encoder and {config.freeze} levels frozen" if config.freeze else ""
    lines = [
        f"data      {config.data.name}: {len(train):,} {kind} of {len(train.classes)} classes, {train.channels} x {height} x {width}; "
        f"{len(data['val']):,} held out" + (f", {len(data['test']):,} to test" if "test" in data else ""),
        *([f"          in {config.data.root}"] if config.data.root is not None else []),
        f"network   channels {' '.join(map(str, net.channels))}, T = {net.timesteps}, {parameters:,} parameters, "
        f"backprop {net.backprop}{frozen}",
        f"training  {config.epochs} epochs of {steps:,} steps of {config.batch_size:,} items{parts}; {config.optim.name}, "
        f"{config.precision}, on {where}",
        f"run       {run}",
    ]
    for line in lines:
        say(console, line)
