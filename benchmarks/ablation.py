"""What each part of the network is worth: short runs of a recipe with one thing changed, several seeds each.

    python benchmarks/ablation.py --recipe fashion-mnist --runs runs/ablation [--seeds 3] [trevsnn options]

What stands after these options is handed to the recipe, as ``trevsnn train`` takes it. Prints a table of mean and
standard deviation over the seeds; finished runs in the folder are not run again, so it can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.network.blocks import LevelStep, PointwiseDepthwise
from trevsnn.network.transform import Transform
from trevsnn.reversible import BACKPROP_MODES
from trevsnn.run.config import RunConfig, recipe_config
from trevsnn.train.train import train


def without_upper_link(config: TRevSNNConfig) -> TRevSNN:
    """No level is given the state of the one above it."""
    model = TRevSNN(config)
    for module in model.modules():
        if isinstance(module, LevelStep):
            module.above = None
    return model


class WithoutSharing(TRevSNN):
    """Nothing is shared over time: each timestep has a PW2 and DW2 of its own in the second block too."""

    def __init__(self, config: TRevSNNConfig) -> None:
        super().__init__(config)
        for level, channels in zip(self.levels, config.channels, strict=True):
            level.halves = nn.ModuleList(PointwiseDepthwise(channels, config.kernel_size) for _ in level.steps)  # type: ignore[union-attr]
            del level.shared

    def _transforms(self) -> tuple[list[list[Transform]], list[list[Tensor] | None]]:
        levels: list[Any] = list(self.levels)
        timesteps = range(self.config.timesteps)
        return (
            [
                [
                    Transform(level.steps[t], level.halves[t], self.config.slice_bytes, f"levels.{i}.steps.{t}")
                    for i, level in enumerate(levels)
                ]
                for t in timesteps
            ],
            [None if t == 0 else [level.alpha(t) for level in levels] for t in timesteps],
        )


def variants(base: TRevSNNConfig) -> dict[str, tuple[TRevSNNConfig, Callable[[TRevSNNConfig], TRevSNN]]]:
    """By name, the config and how the network is made of it."""
    made: dict[str, tuple[TRevSNNConfig, Callable[[TRevSNNConfig], TRevSNN]]] = {
        f"T = {timesteps}": (replace(base, timesteps=timesteps), TRevSNN) for timesteps in (1, 2, 4, 8)
    }
    made["without the upper link"] = (base, without_upper_link)
    made["without sharing over time"] = (base, WithoutSharing)
    if base.input == "image":
        made["grouped encoding"] = (replace(base, encoding="grouped"), TRevSNN)
    for mode in BACKPROP_MODES:
        if mode != base.backprop:
            made[f"backprop {mode}"] = (replace(base, backprop=mode), TRevSNN)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options, rest = parser.parse_known_args()
    base = recipe_config(options.recipe, rest)
    made = variants(base.model)
    table = Table(
        "variant",
        "parameters",
        "last epoch, held out",
        "test",
        "seconds",
        title=f"{options.recipe}, {options.seeds} seeds; T = {base.model.timesteps} and backprop {base.model.backprop} unless named",
    )
    rows_by_seed = [
        [
            _run(options.runs, name, replace(base, model=model, seed=seed), build)
            for name, (model, build) in made.items()
        ]
        for seed in range(options.seeds)
    ]
    for name, *rows in zip(made, *rows_by_seed, strict=True):
        table.add_row(name, f"{rows[0]['parameters']:,}", *(_spread(rows, key) for key in ("last_accuracy", "test_accuracy")),
                      f"{statistics.mean(row['seconds'] for row in rows):.0f}")  # fmt: skip
    Console().print(table)


def _run(runs: Path, name: str, config: RunConfig, build: Callable[[TRevSNNConfig], TRevSNN]) -> dict[str, Any]:
    folder = runs / f"{name.replace(' ', '-')}-{config.seed}"
    if not (folder / "summary.json").is_file():
        train(config, folder, Console(), build)
    return json.loads((folder / "summary.json").read_text())


def _spread(rows: list[dict[str, Any]], key: str) -> str:
    values = [100 * row[key] for row in rows if row[key] is not None]
    if not values:
        return ""
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f} %"


if __name__ == "__main__":
    main()
