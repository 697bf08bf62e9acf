"""Where the time of a training step goes, by kind of operation, for several T at about equal multiply-accumulates.

    python benchmarks/operators.py --recipe cifar-10 [--timesteps 1 4] [--batch 64] [trevsnn options]

What stands after these options is handed to the recipe. Forward and backward pass of random inputs on one thread, without the
optimizer: the median of several steps, in which networks take turns, divided among the kinds as PyTorch's profiler counts them
in as many steps. The profiler takes time for each call, so kinds with many small ones get a little too much.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ablation import scaled
from trevsnn import TRevSNN
from trevsnn.cli.types import PositiveInt
from trevsnn.measure.speed import step_times
from trevsnn.measure.step import TrainingStep
from trevsnn.run.config import recipe_config

REPEATS = 5
KINDS = ("dense convolutions", "depthwise convolutions", "normalisation", "the rest")


def kind(name: str, shapes: Sequence[Sequence[int]]) -> str:
    """Which of ``KINDS`` an operator is, by its name and its arguments' shapes.

    A convolution's last two arguments with four axes are its input (B, C, H, W) and its weight (O, C / groups, k, k), in both
    passes. Weight standardisation is normalisation, as that of maps is: both are done by batch norm's operator.
    """
    maps = [shape for shape in shapes if len(shape) == 4]
    if "batch_norm" in name:
        return "normalisation"
    if "conv" in name and len(maps) >= 2:
        inputs, weight = maps[-2:]
        return "depthwise convolutions" if weight[1] == 1 < inputs[1] else "dense convolutions"
    return "dense convolutions" if name in ("aten::mm", "aten::addmm", "aten::bmm") else "the rest"


def milliseconds(model: nn.Module, loss: Callable[[], Tensor], median: float) -> dict[str, float]:
    """The median seconds of a step, divided among ``KINDS``, in milliseconds."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        for _ in range(REPEATS):
            model.zero_grad()
            loss().backward()
    counted = dict.fromkeys(KINDS, 0.0)
    for event in profiled.key_averages(group_by_input_shape=True):
        counted[kind(event.key, event.input_shapes)] += event.self_cpu_time_total
    return {name: 1e3 * median * time / sum(counted.values()) for name, time in counted.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--timesteps", type=PositiveInt, nargs="+", default=[1, 4])
    parser.add_argument("--batch", type=PositiveInt, default=64)
    options, rest = parser.parse_known_args()
    config = recipe_config(options.recipe, rest)
    torch.set_num_threads(1)
    step = TrainingStep(options.batch, config.data.image_size, config.precision)
    steps: dict[str, tuple[TRevSNN, Callable[[], Tensor]]] = {}
    for timesteps in options.timesteps:
        network = replace(config.model, timesteps=timesteps, channels=scaled(config.model, timesteps))
        model = step.build(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        steps[str(timesteps)] = model, partial(step.loss, model, *step.inputs(network))
    times = step_times(steps, repeats=REPEATS)
    table = Table("T", "channels", "ms a step", *(f"{name}, ms" for name in KINDS))
    for timesteps, (model, loss) in steps.items():
        median = times[timesteps]["step"]
        parts = milliseconds(model, loss, median).values()
        channels = " ".join(map(str, model.config.channels))
        table.add_row(timesteps, channels, f"{1e3 * median:.1f}", *(f"{part:.1f}" for part in parts))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
