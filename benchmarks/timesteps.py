"""What more timesteps are worth, and what they cost: one recipe trained with several T, several seeds each.

    python benchmarks/timesteps.py --recipe n-mnist --runs runs/n-mnist-t --timesteps 1 2 4 8 16 [--seeds 3] [--processes 2] \
      [trevsnn options]

What stands after these options is handed to the recipe, as ``trevsnn train`` takes it. Prints accuracy by T, and the memory
of a training step with ``exact`` and with plain backpropagation, in bytes per item of the recipe's own batches, weights left
out. Writes every run's figures to results.json in the folder. Finished runs in it are not run again and begun ones go on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from series import Variant, figures, finished, report, series_parser, train_all
from trevsnn import TRevSNN, deep_supervision_loss
from trevsnn.data.loading import calibration_items
from trevsnn.measure.memory import footprint
from trevsnn.run.config import RunConfig, recipe_config


def main() -> None:
    parser = series_parser(__doc__.splitlines()[0])
    parser.add_argument("--timesteps", type=int, nargs="+", required=True)
    options, rest = parser.parse_known_args()
    base = recipe_config(options.recipe, rest)
    variants = [Variant(f"T = {t}", {"timesteps": t}) for t in options.timesteps]
    train_all(options.runs, variants, base, range(options.seeds), options.processes)
    results: dict[str, Any] = {}
    for variant in variants:
        memory = {mode: _bytes_per_item(variant.config(base), mode) for mode in ("exact", "autograd")}
        rows = finished(options.runs, variant, base, range(options.seeds))
        results[variant.name] = {"runs": figures(rows), "bytes_per_item": memory}
    report(options.runs, results)


def _bytes_per_item(config: RunConfig, mode: Any) -> float:
    """Peak of a training step in float32 on a batch of the recipe's size, weights left out, per item."""
    inputs = calibration_items(config.data, config.model.timesteps, config.batch_size)
    target = torch.zeros(len(inputs), dtype=torch.int64)
    model = TRevSNN(replace(config.model, backprop=mode))

    def loss() -> torch.Tensor:
        return deep_supervision_loss(model(inputs, all_heads=True), target)

    return sum(footprint(model, [inputs, target], loss).peak.values()) / len(inputs)


if __name__ == "__main__":
    main()
