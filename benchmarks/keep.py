"""The line between ``exact`` and ``autograd``: time of a training step against the memory that ``keep`` may take.

    python benchmarks/keep.py [--model trevsnn_tiny] [--batch 8] [--precision 32-true] [--repeats 7] [--device cpu]

All points take turns in one process; times are medians, and the last column is the median of each turn's ratio. Prints a Markdown
table for docs/results/memory.md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

import torch

from trevsnn import TRevSNNConfig
from trevsnn.measure.memory import measure_memory
from trevsnn.measure.speed import step_times
from trevsnn.measure.step import PRECISIONS, TrainingStep
from trevsnn.sizes import plain_size, size_text
from trevsnn.train.summary import processor_name
from trevsnn.zoo.presets import PRESETS

SHARES = (0.25, 0.5, 0.75, 1.0)  # of all there is to keep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=list(PRESETS), default="trevsnn_tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--size", type=int, nargs="+", default=[224], metavar="PIXELS", help="side, or height and width"
    )
    parser.add_argument("--precision", choices=list(PRECISIONS), default="32-true")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    size = plain_size("--size", options.size)
    step = TrainingStep(options.batch, size, options.precision, options.device)
    exact = TRevSNNConfig(**PRESETS[options.model])
    memory = partial(measure_memory, step=step, fake=True)
    whole = memory(replace(exact, keep="1000GB"))["after_forward"]["kept"] / 1e6
    configs = {"exact": exact}
    for share in SHARES:
        amount = whole * share + 1e-4  # so that what is rounded off leaves no piece out
        configs[f"exact, keep {amount:.1f} MB/item"] = replace(exact, keep=f"{amount:.4f}MB/item")
    configs["autograd"] = replace(exact, backprop="autograd")
    x, target = step.inputs(exact)
    steps = {}
    for name, config in configs.items():
        torch.manual_seed(0)
        model = step.build(config)
        steps[name] = model, partial(step.loss, model, x, target)
    times = step_times(steps, repeats=options.repeats, device=options.device, beside="autograd")
    where = f"{processor_name()}, {torch.get_num_threads()} threads"
    if options.device == "cuda":
        where = torch.cuda.get_device_name()
    pictures = f"{options.batch} pictures of {size_text(size)}"
    print(f"{options.model}, {pictures}, {options.precision}, {where}, torch {torch.__version__}\n")
    print("| | kept, MB per picture | peak, MB per picture | ms per picture | of autograd's time |")
    print("|---|---:|---:|---:|---:|")
    for name, config in configs.items():
        row, seconds = memory(config), times[name]["step"]
        kept, peak = row["after_forward"]["kept"] / 1e6, row["peak_total"] / 1e6
        ms = 1e3 * seconds / options.batch
        print(f"| {name} | {kept:.1f} | {peak:.1f} | {ms:.0f} | {times[name]['ratio']:.2f} |")


if __name__ == "__main__":
    main()
