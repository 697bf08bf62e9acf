"""What time, and each part of the network, is worth: runs of a recipe with one thing changed, several seeds each.

    python benchmarks/ablation.py --recipe cifar-10 --runs runs/ablation [--seeds 3] [--processes 2] [trevsnn options]

What stands after these options is handed to the recipe, as ``trevsnn train`` takes it. Prints a table of means and
standard deviations over the seeds, and writes every run's figures to results.json in the folder. Finished runs in it are
not run again and begun ones go on, so that it can be interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ablation_networks import CHANGES, Build
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.measure.operations import count_operations
from trevsnn.run.config import RunConfig, recipe_config
from trevsnn.train.train import resume, train


@dataclass(frozen=True)
class Variant:
    """A run of the recipe with one thing changed.

    Attributes:
        name: in the table.
        model: fields of the network's config that differ.
        change: a key of ``CHANGES``, how the network is made of its config; None for as it is.
        run: other fields of the run's config that differ.
    """

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    change: str | None = None
    run: dict[str, Any] = field(default_factory=dict)


def variants(base: TRevSNNConfig) -> list[Variant]:
    """What is compared: time at equal multiply-accumulates and at equal width, then one part of the network each."""
    timesteps = [t for t in (1, 2, 4, 8) if t != base.timesteps]
    other = "grouped" if base.encoding == "shared" else "shared"
    made = [Variant(f"T = {base.timesteps}")]
    made += [Variant(f"T = {t}, equal operations", {"timesteps": t, "channels": _scaled(base, t)}) for t in timesteps]
    made += [Variant(f"T = {t}, equal width", {"timesteps": t}) for t in timesteps]
    made += [Variant("links from all levels above", {"links": "all"}), Variant("no alpha", {"alphas": "one"})]
    if base.input == "image":
        made.append(Variant(f"{other} encoding", {"encoding": other}))
    made += [Variant(name, {"backprop": "autograd"}, change=name) for name in CHANGES]
    return [*made, Variant("start: published", run={"start": "published"})]


def _scaled(base: TRevSNNConfig, timesteps: int) -> tuple[int, ...]:
    """Channels with which T timesteps have about as many multiply-accumulates: a block's grow with T C^2."""
    factor = (base.timesteps / timesteps) ** 0.5
    return tuple(max(4, round(channels * factor / 2) * 2) for channels in base.channels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="of one thread each")
    parser.add_argument("--only", nargs="*", help="names of the variants to run; the table has all that are finished")
    options, rest = parser.parse_known_args()
    base = recipe_config(options.recipe, rest)
    wanted = [v for v in variants(base.model) if not options.only or v.name in options.only]
    jobs = [(options.runs, variant, replace(base, seed=seed)) for seed in range(options.seeds) for variant in wanted]
    with ProcessPoolExecutor(options.processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for name in pool.map(_run, *zip(*jobs, strict=True)):
            print(name, flush=True)
    _report(options.runs, base, options.seeds)


def _run(runs: Path, variant: Variant, base: RunConfig) -> str:
    """Train one variant with one seed to its end, unless that is done."""
    folder = _folder(runs, variant, base.seed)
    if (folder / "summary.json").is_file():
        return f"{folder.name} is there"
    build = CHANGES[variant.change] if variant.change else TRevSNN
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / f"{folder.name}.log").open("a") as log:
        if (folder / "checkpoints").is_dir():
            summary = resume(folder, Console(file=log), build)
        else:
            config = replace(base, model=replace(base.model, **variant.model), **variant.run)
            summary = train(config, folder, Console(file=log), build)
    return f"{folder.name}: {summary['last_accuracy']:.2%} held out after {summary['seconds']:.0f} s"


def _folder(runs: Path, variant: Variant, seed: int) -> Path:
    return runs / f"{re.sub('[^a-zA-Z0-9.]+', '-', variant.name)}-{seed}"


def _report(runs: Path, base: RunConfig, seeds: int) -> None:
    """Print the table of all variants with a finished run, and write results.json."""
    table = Table(
        "variant", "channels", "parameters", "M operations", "held out, %", "test, %", "lowest hidden rate, %", "s"
    )
    results: dict[str, Any] = {}
    for variant in variants(base.model):
        done = [_folder(runs, variant, seed) / "summary.json" for seed in range(seeds)]
        rows = [json.loads(path.read_text()) for path in done if path.is_file()]
        if not rows:
            continue
        model = replace(base.model, **variant.model)
        results[variant.name] = {"channels": model.channels, "timesteps": model.timesteps, "parameters": rows[0]["parameters"],
            "macs": _operations(CHANGES[variant.change] if variant.change else TRevSNN, model, base.data.image_size),
            "machine": rows[0]["machine"],
            "runs": [{name: row[name] for name in ("last_accuracy", "test_accuracy", "hidden_rates", "seconds")} | {"seed": row["config"]["seed"]} for row in rows],
        }  # fmt: skip
        quietest = min(rate for row in rows for level in row["hidden_rates"] for rate in level)
        table.add_row(
            variant.name, "-".join(map(str, model.channels)), f"{rows[0]['parameters']:,}",
            f"{results[variant.name]['macs'] / 1e6:.1f}", _spread(rows, "last_accuracy"), _spread(rows, "test_accuracy"),
            f"{100 * quietest:.1f}", f"{statistics.mean(row['seconds'] for row in rows):.0f}",
        )  # fmt: skip
    Console(width=160).print(table)
    (runs / "results.json").write_text(json.dumps(results, indent=1))


def _operations(build: Build, config: TRevSNNConfig, size: int) -> int:
    """Multiply-accumulates of one item, dense."""
    frames = (config.timesteps,) if config.input == "event" else ()
    return sum(operation.macs for operation in count_operations(build(config).eval(), torch.zeros(1, *frames, config.in_chans or 0, size, size)))  # fmt: skip


def _spread(rows: list[dict[str, Any]], key: str) -> str:
    values = [100 * row[key] for row in rows if row[key] is not None]
    if not values:
        return ""
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
