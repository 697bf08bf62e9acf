"""Pictures a second that one core gives, in training and evaluation: decoded by Pillow, at a reduced scale, left to the device.

    OMP_NUM_THREADS=1 python benchmarks/loading.py FOLDER [--sizes 224 64 96x160] [--workers 0 2] [--enlarge 4000]

FOLDER holds pictures in class folders, for example 100 pictures of ImageNet at full size. Augmentation is that of the recipe
imagenet-tiny, in rows with "jitter" with colour jitter in place of RandAugment, which there is none of on the device. "files
read" is what loading processes do with data.on_device; "on device" is that and what the device does, here the CPU. Prints a
table: medians of several passes that take turns, the first, which reads from the disk, left out; in brackets the slowest and
the fastest. Without loading processes (workers 0) seconds are those of the processor, so that other jobs matter little; with
some they are those of the clock.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

from trevsnn.data.config import DataConfig
from trevsnn.data.listing import list_classes
from trevsnn.data.loading import TensorDataset, batches, make_loader
from trevsnn.data.pictures.folders import list_pictures
from trevsnn.data.pictures.on_device import DeviceLoader
from trevsnn.data.sampling import EpochSampler
from trevsnn.run.config import recipe_yaml
from trevsnn.sizes import Size, plain_size, size_text

JITTER = {"auto_augment": None, "color_jitter": 0.4}
WAYS: dict[str, dict[str, Any]] = {
    "Pillow": {},
    "reduced": {"reduced": True},
    "Pillow, jitter": JITTER,
    "reduced, jitter": {"reduced": True, **JITTER},
    "files read": {"on_device": True, **JITTER},
    "on device, jitter": {"on_device": True, **JITTER},
}
BATCH = 10


def make(folder: Path, way: str, size: Size, workers: int, training: bool) -> tuple[Iterable[Any], EpochSampler]:
    """A way's loader, and the order it loads in."""
    recipe = yaml.safe_load(recipe_yaml("imagenet-tiny"))["data"]
    options = {**recipe, "root": str(folder), "workers": workers, "image_size": size, **WAYS[way]}
    config = DataConfig(**options)
    dataset = TensorDataset(
        list_pictures(folder, list_classes(folder), config), config, 0, timesteps=1, training=training
    )
    sampler = EpochSampler(len(dataset), 0, shuffle=training)
    loader = make_loader(dataset, sampler, BATCH, config, torch.device("cpu"))
    files_alone = isinstance(loader, DeviceLoader) and way == "files read"
    return (loader.loader if files_alone else loader), sampler


def measure(folder: Path, size: Size, workers: int, training: bool, passes: int) -> dict[str, list[float]]:
    """By the way, pictures per second of each pass but the first."""
    made = {way: make(folder, way, size, workers, training) for way in WAYS}
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    clock = time.perf_counter if workers else time.process_time
    for epoch in range(passes + 1):
        for way, (loader, sampler) in made.items():
            sampler.epoch = epoch
            begin, seen = clock(), 0
            for _ in batches(loader):
                seen += BATCH
            rates[way].append(seen / (clock() - begin))
    return {way: found[1:] for way, found in rates.items()}


def _size(text: str) -> Size:
    return plain_size("--sizes", [int(side) for side in text.split("x")])


def enlarged(folder: Path, longer: int, into: Path, most: int = 20) -> Path:
    """The first pictures of a folder, their longer side enlarged to so many pixels, as JPEG."""
    part = list_pictures(folder, list_classes(folder), DataConfig(name="folder", root=str(folder)))
    for index in range(min(most, len(part))):
        picture = part.read(index)
        factor = longer / max(picture.size)
        large = picture.resize(
            (round(picture.width * factor), round(picture.height * factor)), Image.Resampling.BICUBIC
        )
        place = into / part.classes[part.labels_N[index]]
        place.mkdir(exist_ok=True)
        large.save(place / f"{index}.jpg", quality=90)
    return into


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", type=_size, nargs="+", default=[224, 64], help="sides, or HEIGHTxWIDTH")
    parser.add_argument("--workers", type=int, nargs="+", default=[0])
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument(
        "--enlarge", type=int, help="pixels of the longer side, to which 20 of the pictures are enlarged"
    )
    options = parser.parse_args()
    table = Table("size", "workers", "way", "training, pictures/s", "evaluation, pictures/s")
    with tempfile.TemporaryDirectory() as into:
        folder = enlarged(options.folder, options.enlarge, Path(into)) if options.enlarge else options.folder
        for size in options.sizes:
            for workers in options.workers:
                found = [measure(folder, size, workers, training, options.passes) for training in (True, False)]
                for way in WAYS:
                    rates = [part[way] for part in found]
                    cells = (f"{statistics.median(r):.0f} ({min(r):.0f} to {max(r):.0f})" for r in rates)
                    table.add_row(size_text(size), str(workers), way, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
