"""What each part of the network is worth: short runs of a recipe with one thing changed, several seeds each.

    python benchmarks/ablation.py --recipe fashion-mnist --runs runs/ablation [--seeds 3] [trevsnn options]

What stands after these options is handed to the recipe, as ``trevsnn train`` takes it. Prints a table of mean and
standard deviation over the seeds; finished runs found in the folder are not run again, so it can be interrupted.
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
from torch import nn

from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.network.blocks import EXPANSION, Level, LevelStep, PointwiseDepthwise, Transform
from trevsnn.reversible import BACKPROP_MODES
from trevsnn.run.config import RunConfig, recipe_config
from trevsnn.train.train import train


def without_upper_link(config: TRevSNNConfig) -> TRevSNN:
    """No level hears of the one above it."""
    model = TRevSNN(config)
    for module in model.modules():
        if isinstance(module, LevelStep):
            module.above = None
    return model


class OwnHalves(Level):
    """A level whose timesteps each have a PW2 and DW2 of their own in the second block too."""

    def __init__(self, level: Level, kernel_size: int) -> None:
        nn.Module.__init__(self)
        self.steps, self.alphas = level.steps, level.alphas
        channels = level.shared.pw2.in_channels // EXPANSION
        self.halves = nn.ModuleList(PointwiseDepthwise(channels, kernel_size) for _ in level.steps)

    def transform(self, step: int, slice_bytes: int | None) -> Transform:
        return Transform(self.steps[step], self.halves[step], slice_bytes)


def without_sharing(config: TRevSNNConfig) -> TRevSNN:
    """Nothing is shared over time."""
    model = TRevSNN(config)
    model.levels = nn.ModuleList(OwnHalves(level, config.kernel_size) for level in model.levels)  # type: ignore[arg-type]
    return model


def variants(base: TRevSNNConfig) -> dict[str, tuple[TRevSNNConfig, Callable[[TRevSNNConfig], TRevSNN]]]:
    """By name, the config and how the network is made of it."""
    found: dict[str, tuple[TRevSNNConfig, Callable[[TRevSNNConfig], TRevSNN]]] = {
        f"T = {timesteps}": (replace(base, timesteps=timesteps), TRevSNN) for timesteps in (1, 2, 4, 8)
    }
    found["without the upper link"] = (base, without_upper_link)
    found["without sharing over time"] = (base, without_sharing)
    if base.input == "image":
        found["grouped encoding"] = (replace(base, encoding="grouped"), TRevSNN)
    for mode in BACKPROP_MODES:
        if mode != base.backprop:
            found[f"backprop {mode}"] = (replace(base, backprop=mode), TRevSNN)
    return found


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
    rows = [
        [
            _run(options.runs, name, replace(base, model=model, seed=seed), build)
            for name, (model, build) in made.items()
        ]
        for seed in range(options.seeds)
    ]
    for name, *found in zip(made, *rows, strict=True):
        table.add_row(name, f"{found[0]['parameters']:,}", *(_spread(found, key) for key in ("last_accuracy", "test_accuracy")),
                      f"{statistics.mean(row['seconds'] for row in found):.0f}")  # fmt: skip
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
