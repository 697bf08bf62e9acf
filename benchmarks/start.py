"""Potentials and firing rates of a fresh network on a recipe's data, by level: what its start is derived for.

    python benchmarks/start.py --recipe cifar-10 [--timesteps 1 4 16] [--kernel_sizes 3 5] [trevsnn options]

What stands after these options is handed to the recipe. Batch statistics are those of the very items, 128 of the training part.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from trevsnn import TRevSNN
from trevsnn.data.loading import calibration_items
from trevsnn.reversible import unroll
from trevsnn.run.config import recipe_config

ITEMS = 128


@torch.no_grad()
def fresh(model: TRevSNN, inputs: Tensor) -> tuple[list[float], list[list[float]]]:
    """Standard deviations of the last states by level, and firing rates of states and hidden neurons by level."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    *_, states = unroll(*model.train()._recurrence(inputs), sees=model._sees)
    return [float(state.std()) for state in states], model.eval().forward_with_rates(inputs)[1].by_level()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--kernel_sizes", type=int, nargs="+", default=[3, 5])
    options, rest = parser.parse_known_args()
    config = recipe_config(options.recipe, rest)
    table = Table("T", "k", "deviation of the last states", "rates of states, %", "of hidden neurons, %")
    for timesteps in options.timesteps:
        inputs = calibration_items(config.data, timesteps, ITEMS)
        for kernel_size in options.kernel_sizes:
            torch.manual_seed(config.seed)
            model = TRevSNN(replace(config.model, timesteps=timesteps, kernel_size=kernel_size))
            deviations, rates = fresh(model, inputs)
            table.add_row(
                str(timesteps), str(kernel_size), "  ".join(f"{d:.2f}" for d in deviations),
                "  ".join(f"{100 * level[0]:.0f}" for level in rates),
                "  ".join(f"{100 * hidden:.0f}" for level in rates for hidden in level[1:]),
            )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
