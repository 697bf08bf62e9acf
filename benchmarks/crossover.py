"""PW1 and PW2 of each level of the tiny network in 8 bits, PW2 spike-driven and dense, against the firing rate.

    python benchmarks/crossover.py

One picture of 224 x 224, random weights; the threshold is set so that the hidden neurons fire at the given rate. Where the
two take equally long is where the engine's ``CROSSOVER`` belongs. Needs ``pip install 'trevsnn[deploy]'``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from trevsnn.deploy.int8.layers import Hidden, IntegerConv, QLinearConv
from trevsnn.deploy.int8.loops import set_threads

LEVELS = ((64, 56), (128, 28), (256, 14), (384, 14))  # channels; pixels on each side
RATES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
POINTWISE = {"strides": [1, 1], "pads": [0, 0, 0, 0]}


def conv(inputs: int, outputs: int, crossover: float, *, firing: bool) -> IntegerConv:
    """A pointwise convolution of random weights: PW1, from codes of 7 bits, or PW2, from spikes."""
    weight = np.random.default_rng(0).integers(-127, 128, (outputs, inputs, 1, 1)).astype(np.int8)
    one, zero, zeros = np.float32(1), np.uint8(0), np.zeros(outputs, np.int8)
    scale, bias = np.full(outputs, 0.01, np.float32), np.zeros(outputs, np.int32)
    constants = QLinearConv(one, zero, weight, scale, zeros, one, zero if firing else np.uint8(128), bias)
    return IntegerConv(constants, POINTWISE, crossover, spiking=not firing, firing=firing)


def both(channels: int, pixels: int, rate: float, crossover: float) -> Callable[[], object]:
    """PW1 and PW2 on codes of one picture, with hidden neurons that fire at the rate."""
    expand = conv(channels, 4 * channels, 0, firing=True)
    project = conv(4 * channels, channels, crossover, firing=False)
    codes = np.random.default_rng(1).integers(0, 128, (1, pixels, pixels, channels)).astype(np.uint8)
    hidden = expand(codes)
    assert isinstance(hidden, Hidden)
    assert expand.threshold is not None
    sums = np.concatenate([part for _, part in hidden.parts()])
    expand.threshold[:] = np.floor(np.quantile(sums, 1 - rate))
    return lambda: project(expand(codes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=31)
    repeats = parser.parse_args().repeats
    set_threads()
    print(f"ms, medians of {repeats}, threads: {torch.get_num_threads()}")
    for channels, pixels in LEVELS:
        runs = {f"{rate:.0%}": both(channels, pixels, rate, 1.1) for rate in RATES}
        runs["dense"] = both(channels, pixels, RATES[0], 0.0)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(repeats + 2):
            for name, run in runs.items():
                begin = time.perf_counter()
                run()
                if turn > 1:
                    seconds[name].append(time.perf_counter() - begin)
        cells = "  ".join(f"{name} {1e3 * statistics.median(times):.2f}" for name, times in seconds.items())
        print(f"{channels} channels, {pixels} x {pixels}:  {cells}")


if __name__ == "__main__":
    main()
