"""Series of trainings that differ in one thing, several seeds each: run in several processes, and reported."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ablation_networks import CHANGES
from results import series_table
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.cli.types import PositiveInt
from trevsnn.run.config import RunConfig, to_dict
from trevsnn.run.folder import RunFolder
from trevsnn.run.options import flatten
from trevsnn.train.train import resume, train

FIGURES = (
    "last_accuracy",
    "best_accuracy",
    "test_accuracy",
    "firing_rates",
    "hidden_rates",
    "seconds",
    "parameters",
    "machine",
)

_OF_THE_MACHINE = ("data.root", "data.cache", "data.workers")  # fields of a config that change no figure


def series_parser(description: str) -> argparse.ArgumentParser:
    """The options that every series of trainings has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--seeds", type=PositiveInt, default=3)
    parser.add_argument("--processes", type=PositiveInt, default=os.cpu_count(), help="of one thread each")
    return parser


@dataclass(frozen=True)
class Variant:
    """A run with one thing changed.

    Attributes:
        name: in the table.
        model: fields of the network's config that differ.
        change: a key of ``CHANGES``, how the network is made of its config; None for as it is.
        run: other fields of the run's config that differ.
    """

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    change: str | None = None
    run: Mapping[str, Any] = field(default_factory=dict)

    def config(self, base: RunConfig) -> RunConfig:
        """The run's config."""
        return replace(base, model=replace(base.model, **self.model), **self.run)

    def build(self, config: TRevSNNConfig) -> TRevSNN:
        """The network."""
        return CHANGES[self.change](config) if self.change else TRevSNN(config)

    def folder(self, runs: Path, seed: int) -> Path:
        """Where its run with a seed is."""
        return runs / f"{re.sub('[^a-zA-Z0-9.]+', '-', self.name)}-{seed}"


def train_all(
    runs: Path, variants: Sequence[Variant], base: RunConfig, seeds: Iterable[int], processes: int | None
) -> None:
    """Train every variant with every seed, in processes of one thread each.

    Finished runs in the folder are not run again, and begun ones go on, if they have the same config.
    """
    runs.mkdir(parents=True, exist_ok=True)
    jobs = [(runs, variant, replace(base, seed=seed)) for seed in seeds for variant in variants]
    for _, variant, one in jobs:
        _same_config(variant.folder(runs, one.seed), variant.config(one))
    with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for line in pool.map(_train, *zip(*jobs, strict=True)):
            print(line, flush=True)


def _train(runs: Path, variant: Variant, base: RunConfig) -> str:
    folder = variant.folder(runs, base.seed)
    if (folder / "summary.json").is_file():
        return f"{folder.name} is there"
    with (runs / f"{folder.name}.log").open("a") as log:
        console = Console(file=log)
        if _begun(folder):
            summary = resume(folder, console, variant.build)
        else:
            summary = train(variant.config(base), folder, console, variant.build)
    return f"{folder.name}: {summary['last_accuracy']:.2%} held out after {summary['seconds']:.0f} s"


def _begun(folder: Path) -> bool:
    return RunFolder(folder).config_file.is_file()


def _same_config(folder: Path, config: RunConfig) -> None:
    """End with a sentence where a run in the folder was trained in another way."""
    if not _begun(folder):
        return
    there, asked = (flatten(to_dict(one)) for one in (RunFolder.open(folder).read_config(), config))
    if differing := [name for name in asked if there[name] != asked[name] and name not in _OF_THE_MACHINE]:
        raise SystemExit(f"{folder} was trained with other values of {', '.join(differing)}: name another folder.")


def finished(runs: Path, variant: Variant, base: RunConfig, seeds: Iterable[int]) -> list[dict[str, Any]]:
    """The summaries of a variant's finished runs."""
    summaries = []
    for seed in seeds:
        folder = variant.folder(runs, seed)
        if (folder / "summary.json").is_file():
            _same_config(folder, variant.config(replace(base, seed=seed)))
            summaries.append(json.loads((folder / "summary.json").read_text()))
    return summaries


def figures(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What results.json keeps of runs."""
    return [{"seed": row["config"]["seed"]} | {name: row[name] for name in FIGURES} for row in rows]


def report(runs: Path, results: dict[str, Any]) -> None:
    """Write results.json in the folder, and print its table."""
    (runs / "results.json").write_text(json.dumps(results, indent=1))
    print(series_table(results))
