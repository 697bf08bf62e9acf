"""What time, and each part of the network, is worth: runs of a recipe with one thing changed, several seeds each.

    python benchmarks/ablation.py --recipe cifar-10 --runs runs/ablation [--seeds 3] [--processes 2] [trevsnn options]

What stands after these options is handed to the recipe, as ``trevsnn train`` takes it. Prints a table of means and
standard deviations over the seeds, and writes every run's figures to results.json in the folder. Finished runs in it are
not run again and begun ones go on, so that it can be interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablation_networks import CHANGES
from series import Variant, figures, finished, report, series_parser, train_all
from trevsnn import TRevSNNConfig
from trevsnn.data.loading import calibration_items
from trevsnn.measure.operations import count_operations
from trevsnn.run.config import RunConfig, recipe_config

#: Times the epochs. On CIFAR-10 one of T = 1 took 0.6 of the minutes of one of T = 4 at equal operations: twice is a little more.
LONGER = 2


def variants(run: RunConfig) -> list[Variant]:
    """What is compared: time at equal multiply-accumulates and at equal width, then one part of the network each."""
    base = run.model
    timesteps = [t for t in (1, 2, 4, 8) if t != base.timesteps]
    other = "grouped" if base.encoding == "shared" else "shared"
    alone = {"timesteps": 1, "channels": scaled(base, 1)}
    made = [Variant(f"T = {base.timesteps}")]
    if base.timesteps > 1:
        longer = {"epochs": LONGER * run.epochs}
        made.append(Variant(f"T = 1, equal operations, {LONGER} times the epochs", alone, run=longer))
    made += [Variant(f"T = {t}, equal operations", {"timesteps": t, "channels": scaled(base, t)}) for t in timesteps]
    made += [Variant(f"T = {t}, equal width", {"timesteps": t}) for t in timesteps]
    made += [Variant("links from all levels above", {"links": "all"}), Variant("no alpha", {"alphas": "one"})]
    if base.input == "image":
        made.append(Variant(f"{other} encoding", {"encoding": other}))
    made += [Variant(name, {"backprop": "autograd"}, change=name) for name in CHANGES]
    return [*made, Variant("start: published", run={"start": "published"})]


def scaled(base: TRevSNNConfig, timesteps: int) -> tuple[int, ...]:
    """Channels with which T timesteps have about as many multiply-accumulates: a block's grow with T C^2."""
    factor = (base.timesteps / timesteps) ** 0.5
    return tuple(max(4, round(channels * factor / 4) * 4) for channels in base.channels)


def main() -> None:
    parser = series_parser(__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="names of the variants to train; the table has all that are finished")
    options, rest = parser.parse_known_args()
    base = recipe_config(options.recipe, rest)
    names = [variant.name for variant in variants(base)]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only: there is no {', '.join(unknown)}; there are {', '.join(names)}.")
    wanted = [variant for variant in variants(base) if not options.only or variant.name in options.only]
    train_all(options.runs, wanted, base, range(options.seeds), options.processes)
    _report(options.runs, base, options.seeds)


def _report(runs: Path, base: RunConfig, seeds: int) -> None:
    """Write results.json of all variants with a finished run, and print their table."""
    results: dict[str, Any] = {}
    for variant in variants(base):
        rows = finished(runs, variant, base, range(seeds))
        if rows:
            channels = variant.config(base).model.channels
            results[variant.name] = {"channels": channels, "macs": _operations(variant, base), "runs": figures(rows)}
    report(runs, results)


def _operations(variant: Variant, base: RunConfig) -> int:
    """Multiply-accumulates of one item, dense."""
    config = variant.config(base)
    item = calibration_items(config.data, config.model.timesteps, 1)
    return sum(operation.macs for operation in count_operations(variant.build(config.model).eval(), item))


if __name__ == "__main__":
    main()
