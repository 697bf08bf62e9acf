"""Pictures per second that loading gives: decode, timm's training augmentation, batch, at 224 x 224.

    python benchmarks/loading.py FOLDER [--workers 0 1 2 4]

FOLDER holds pictures in class folders, for example 100 pictures of ImageNet at full size. Prints a table; medians of
several passes in one run, the first, which reads from the disk, left out.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table

from trevsnn.data.config import DataConfig
from trevsnn.data.listing import list_classes
from trevsnn.data.loading import TensorDataset, batches, make_loader
from trevsnn.data.pictures.folders import list_pictures
from trevsnn.data.sampling import EpochSampler
from trevsnn.run.config import recipe_yaml


def measure(folder: Path, workers: int, training: bool, passes: int) -> list[float]:
    """Pictures per second of each pass but the first."""
    recipe = yaml.safe_load(recipe_yaml("imagenet-tiny"))["data"]
    config = DataConfig(**{**recipe, "root": str(folder), "workers": workers})
    dataset = TensorDataset(list_pictures(folder, list_classes(folder)), config, 0, timesteps=1, training=training)
    sampler = EpochSampler(len(dataset), 0, shuffle=training)
    loader = make_loader(dataset, sampler, 10, config, torch.device("cpu"))
    rates = []
    for epoch in range(passes + 1):
        sampler.epoch = epoch
        begin, seen = time.perf_counter(), 0
        for inputs, _, _ in batches(loader):
            seen += len(inputs)
        rates.append(seen / (time.perf_counter() - begin))
    return rates[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--passes", type=int, default=5)
    options = parser.parse_args()
    table = Table(
        "workers",
        "training, pictures/s",
        "evaluation, pictures/s",
        title=f"{platform.processor() or platform.machine()}",
    )
    for workers in options.workers:
        rates = [statistics.median(measure(options.folder, workers, t, options.passes)) for t in (True, False)]
        table.add_row(str(workers), *(f"{rate:.0f}" for rate in rates))
    Console().print(table)


if __name__ == "__main__":
    main()
