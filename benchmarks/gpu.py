"""Everything that is to be measured on a GPU, in one command whose pieces survive being cut off.

    python benchmarks/gpu.py tests memory profile tune train --out FOLDER [--minutes 9]
    python benchmarks/gpu.py memory --out FOLDER --small --device cpu      # tiny sizes, to try it all on a CPU
    python benchmarks/gpu.py report FOLDER... --docs docs                  # results/gpu.md, .json, the pictures
    python benchmarks/gpu.py bring FOLDER [--python 3.12]                  # wheels for a machine without network

Pieces:
    tests      the tests that take a device, on this one
    memory     memory and time of a training step, beside SpikingJelly's SEW-ResNet-18 and torchvision's ResNet-18
    profile    where a step's time goes, and the card's own ceilings
    tune       what slices, layouts, kernels and cuDNN's choices are worth, one at a time
    train      trevsnn train on CIFAR-10, for the minutes of --train_minutes

Every measurement is a line of FOLDER/PIECE.jsonl as soon as it is made. A piece that is started again goes on behind the last.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gpu_cases import REAL, SMALL, Case, memory_cases, needs_own_process
from gpu_measure import measure
from gpu_rows import Deadline, Rows, go_on_afresh_if_broken, machine, own_group

PIECES = {"tests": "gpu_runs", "memory": "gpu", "profile": "gpu_profile", "tune": "gpu_profile", "train": "gpu_runs"}
#: What a machine with PyTorch's usual companions may lack: this library's needs, SpikingJelly, kornia and what they import.
BROUGHT = (
    "rich", "markdown-it-py", "mdurl", "pygments", "jsonargparse", "docstring-parser", "typeshed-client",
    "lightning-fabric", "spikingjelly", "loguru", "kornia", "kornia-rs",
)  # fmt: skip
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PAGE = "results/gpu.md"
COMPILE_SECONDS, GRAPH_SECONDS = 240, 120


def memory(options: argparse.Namespace, deadline: Deadline) -> None:
    """The piece ``memory``."""
    scale, rows = SMALL if options.small else REAL, Rows(options.out / "memory.jsonl", retry=options.retry)
    for case in memory_cases(scale):
        if case.key in rows.done:
            continue
        if deadline.left() <= 0:
            return
        if needs_own_process(case) and options.device == "cuda":
            row = in_own_process(case, options, deadline)
        else:
            row = measure(case, scale, options.device)
        rows.add(case.key, row)
        say(case.key, row)
        go_on_afresh_if_broken()


def in_own_process(case: Case, options: argparse.Namespace, deadline: Deadline) -> dict[str, Any]:
    """:func:`measure` in a process of its own, which is ended where it takes too long."""
    limit = min(COMPILE_SECONDS if case.variant == "compiled" else GRAPH_SECONDS, max(30.0, deadline.left()))
    command = [sys.executable, __file__, "one", json.dumps(case), "--device", options.device]
    command += ["--small"] * options.small
    try:
        with own_group(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return {**case._asdict(), "error": f"not done after {limit:.0f} s.", **machine(options.device)}
    try:
        return json.loads(output.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        ended = f"the process ended with {process.returncode}."
        return {**case._asdict(), "error": ended, **machine(options.device)}


def say(key: str, row: dict[str, Any]) -> None:
    """One line of progress."""
    figures = {
        name: row[name] for name in ("step_ms", "bytes_per_picture", "pictures_per_second", "error") if name in row
    }
    print(key, *(f"{name} {x:.1f}" if isinstance(x, float) else x for name, x in figures.items()), sep="  ", flush=True)


def bring(folder: Path, python: str) -> None:
    """Download the wheels a machine without network may lack, for a version of Python on x86-64 Linux, in the versions that are
    installed here, and say what else to bring and how they are used."""
    try:
        wanted = [f"{name}=={version(name)}" for name in BROUGHT]
    except PackageNotFoundError as error:
        sys.exit(
            f"{error.name} is not installed here to take its version from: pip install -e '.[bench,device]' first."
        )
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version", python,
        "--implementation", "cp", *(word for name in PLATFORMS for word in ("--platform", name)), "-d", str(folder),
        *wanted,
    ]  # fmt: skip
    print(*command, flush=True)
    subprocess.run(command, check=True)
    size = sum(file.stat().st_size for file in folder.glob("*.whl")) / 2**20
    print(
        f"{size:.0f} MiB of wheels for Python {python}; for the piece train bring the folder of CIFAR-10, too (docs/do/data.md)."
    )
    print("there: python3 -m pip install --no-index --no-deps --target DIR FOLDER/*.whl; export PYTHONPATH=DIR:src")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="PIECE", help=f"{', '.join(PIECES)}; or report, or bring")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=1e9, help="start nothing new after these")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("--retry", action="store_true", help="measure again what failed, unless for lack of memory")
    parser.add_argument("--data", type=Path, help="train: folder of CIFAR-10")
    parser.add_argument("--run", type=Path, help="train: the run's folder (default: OUT/run)")
    parser.add_argument("--train_minutes", type=float, default=9.0, help="train: epochs are chosen to take these")
    parser.add_argument("--train_options", default="", help="train: further options of trevsnn train, in one string")
    parser.add_argument("--docs", type=Path, help="report: folder whose results/gpu.md and .json are written anew")
    parser.add_argument("--python", default="3.12", help="bring: the machine's version of Python (default: 3.12)")
    options = parser.parse_args()
    first, *others = options.words
    if first == "report":
        if options.docs is None or not (options.docs / PAGE).is_file():
            parser.error(f"say with --docs in which folder {PAGE} is to be written anew.")
        if empty := [word for word in others or [""] if not any(Path(word).glob("*.jsonl"))]:
            parser.error(f"there are no results in {', '.join(map(repr, empty))}: name folders that --out named.")
    elif first == "bring":
        if len(others) != 1:
            parser.error("bring one folder: gpu.py bring FOLDER.")
    elif first != "one":
        if unknown := [word for word in options.words if word not in PIECES]:
            parser.error(f"there is no piece {', '.join(unknown)}; there are {', '.join(PIECES)}.")
        if options.out is None:
            parser.error("say with --out where the results go.")
        if options.device == "cuda" and not torch.cuda.is_available():
            parser.error("there is no CUDA device on this machine: --small --device cpu tries it all without one.")
    return options


def main() -> None:
    options = parse()
    first, *others = options.words
    if first == "one":
        print(json.dumps(measure(Case(*json.loads(others[0])), SMALL if options.small else REAL, options.device)))
    elif first == "bring":
        bring(Path(others[0]), options.python)
    elif first == "report":
        importlib.import_module("gpu_report").write(list(map(Path, others)), options.docs / PAGE)
    else:
        deadline = Deadline(options.minutes)
        for word in options.words:
            piece: Callable[..., None] = memory
            if word != "memory":
                piece = getattr(importlib.import_module(PIECES[word]), word)
            piece(options, deadline)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a time limit ends this as Ctrl-C does, children first
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on behind what was measured.")
