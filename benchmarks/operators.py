"""Where the time of a training step goes, by kind of operation: timesteps at equal multiply-accumulates.

    python benchmarks/operators.py --recipe cifar-10 [--timesteps 1 4] [--batch 64] [trevsnn options]

What stands after these options is handed to the recipe. Forward and backward pass on one thread, without the optimizer:
medians of the steps as they are, and of each kind its share of what PyTorch's profiler counts.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from ablation import scaled
from trevsnn.cli.types import PositiveInt
from trevsnn.measure.speed import step_times
from trevsnn.measure.step import TrainingStep
from trevsnn.run.config import recipe_config

REPEATS = 5
KINDS = ("dense convolutions", "depthwise convolutions", "batch norm", "the rest")


def kind(name: str, shapes: Sequence[Sequence[int]]) -> str:
    """Which of ``KINDS`` an operator is, by its name and its arguments' shapes.

    A convolution's weight (O, I/groups, k, k), k odd, is depthwise where I/groups is 1. On maps of one, three or five
    pixels a side an input is taken for a weight.
    """
    if "batch_norm" in name:
        return "batch norm"
    if name in ("aten::mm", "aten::addmm", "aten::bmm"):
        return "dense convolutions"
    if "conv" in name:
        for shape in shapes:
            if len(shape) == 4 and shape[2] == shape[3] and shape[2] in (1, 3, 5):
                return "depthwise convolutions" if shape[1] == 1 else "dense convolutions"
    return "the rest"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--timesteps", type=PositiveInt, nargs="+", default=[1, 4])
    parser.add_argument("--batch", type=PositiveInt, default=64)
    options, rest = parser.parse_known_args()
    config = recipe_config(options.recipe, rest)
    torch.set_num_threads(1)
    step = TrainingStep(options.batch, config.data.image_size, config.precision)
    table = Table("T", "channels", "ms a step", *(f"{kind}, ms" for kind in KINDS))
    for timesteps in options.timesteps:
        network = replace(config.model, timesteps=timesteps, channels=scaled(config.model, timesteps))
        model, (x, target) = step.build(network), step.inputs(network)

        def loss(model=model, x=x, target=target):
            return step.loss(model, x, target)

        median = step_times({"": (model, loss)}, repeats=REPEATS)[""]["step"]
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
            loss().backward()
        counted: dict[str, float] = defaultdict(float)
        for event in profiled.key_averages(group_by_input_shape=True):
            counted[kind(event.key, event.input_shapes)] += event.self_cpu_time_total
        share = 1e3 * median / sum(counted.values())
        table.add_row(
            str(timesteps), " ".join(map(str, network.channels)), f"{1e3 * median:.1f}",
            *(f"{counted[name] * share:.1f}" for name in KINDS),
        )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
