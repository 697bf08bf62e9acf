"""The pieces ``tests`` and ``train`` of benchmarks/gpu.py, which run other commands."""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_rows import Deadline, Rows, machine, own_group

ROOT = Path(__file__).parents[1]
FOLDERS = ("tests/reversible", "tests/network", "tests/neurons", "tests/train", "tests/data/pictures/test_on_device.py")
PROBE_EPOCHS = 2  # of which the second tells how long an epoch takes


def tests(options: argparse.Namespace, deadline: Deadline) -> None:
    """The piece ``tests``."""
    rows = Rows(options.out / "tests.jsonl", retry=True)
    if "tests" in rows.done or deadline.left() <= 0:
        return
    workers = "1" if options.small else "8"
    command = [
        "-m",
        "pytest",
        "-n",
        workers,
        "-p",
        "no:cacheprovider",
        "-q",
        "-k",
        f"{options.device} or kernels",  # what takes a device, and tests/network/kernels, which run where kernels do
        *FOLDERS,
    ]
    start = time.perf_counter()
    code, output = _run(command, options.out / "tests.txt", deadline.left())
    counts = {
        word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|errors?|deselected)", output[-500:])
    }
    row: dict[str, Any] = {"counts": counts, "exit": code, "seconds": round(time.perf_counter() - start, 1)}
    if code is None:
        row["error"] = "the time was up before the tests were done."
    rows.add("tests", row | machine(options.device))
    print(f"tests: {row}", flush=True)


def train(options: argparse.Namespace, deadline: Deadline) -> None:
    """The piece ``train``: as many epochs of CIFAR-10 as fit, or the rest of a run that was cut off."""
    rows, folder = Rows(options.out / "train.jsonl", retry=True), options.run or options.out / "run"
    if "train" in rows.done or deadline.left() <= 0:
        return
    log, arguments = options.out / "train.txt", _arguments(options)
    if not (folder / "config.yaml").exists():
        if "--epochs" not in arguments:
            epochs = _epochs(arguments, folder.with_name(folder.name + "-probe"), log, options, deadline)
            arguments += ["--epochs", str(epochs)]
        command = ["--run", str(folder), *arguments]
    else:
        command = ["--resume", str(folder)]
    code, output = _run(["-m", "trevsnn", "train", *command], log, deadline.left())
    row = figures(folder) | {"arguments": arguments}
    if options.data:  # where a machine keeps its data is no result
        row = json.loads(json.dumps(row).replace(json.dumps(str(options.data)), json.dumps(options.data.name)))
    if code != 0:
        lines = [line for line in output.splitlines() if line.strip()]
        row["error"] = "the time was up; the run can go on." if code is None else f"{code}: {''.join(lines[-1:])}"
    rows.add("train", row | machine(options.device))
    print(f"train: {row}", flush=True)


def _arguments(options: argparse.Namespace) -> list[str]:
    """The options of ``trevsnn train``; later ones count."""
    workers = min(12, max(0, (os.cpu_count() or 1) - 2))
    data = ["--data.root", str(options.data)] if options.data else []
    recipe = ["--recipe", "digits"] if options.small and not options.data else ["--recipe", "cifar-10"]
    return [
        *recipe, *data, "--accelerator", options.device, "--precision", "bf16-mixed", "--data.workers", str(workers),
        "--data.download", "false", "--checkpoint_seconds", "60",
        *shlex.split(options.train_options),
    ]  # fmt: skip


def _epochs(arguments: list[str], probe: Path, log: Path, options: argparse.Namespace, deadline: Deadline) -> int:
    """How many epochs take the minutes of ``--train_minutes``, as two epochs tell."""
    if not (probe / "summary.json").exists():
        command = ["--resume", str(probe)] if (probe / "config.yaml").exists() else ["--run", str(probe), *arguments]
        command += ["--epochs", str(PROBE_EPOCHS)] if "--run" in command else []
        code, output = _run(["-m", "trevsnn", "train", *command], log, deadline.left())
        if code != 0:
            raise SystemExit(f"the first {PROBE_EPOCHS} epochs ended with {code}: {output[-500:]}")
    return max(PROBE_EPOCHS, int(60 * options.train_minutes / epoch_seconds(history(probe))[-1]))


def history(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv; none where it has none yet."""
    path = folder / "metrics.csv"
    return list(csv.DictReader(path.open())) if path.exists() else []


def epoch_seconds(epochs: list[dict[str, str]]) -> list[float]:
    """Seconds of each epoch; the run counts them from its beginning."""
    ends = [0.0, *(float(epoch["seconds"]) for epoch in epochs)]
    return [end - start for start, end in itertools.pairwise(ends)]


def figures(folder: Path) -> dict[str, Any]:
    """What a run has come to, from its metrics.csv and, where it is done, its summary.json."""
    epochs = history(folder)
    if not epochs:
        return {"epochs": 0}
    summary = json.loads((folder / "summary.json").read_text()) if (folder / "summary.json").exists() else {}
    row: dict[str, Any] = {
        "epochs": len(epochs), "last_accuracy": float(epochs[-1]["val_accuracy"]),
        "seconds_per_epoch": epoch_seconds(epochs),
        "accuracy_by_epoch": [float(epoch["val_accuracy"]) for epoch in epochs],
    }  # fmt: skip
    if summary:
        kept = (
            "test_accuracy",
            "best_accuracy",
            "best_epoch",
            "peak_memory_bytes",
            "parameters",
            "items",
            "steps",
            "seconds",
        )
        row |= {name: summary.get(name) for name in kept} | {"config": summary["config"], "machine": summary["machine"]}
        pictures = summary["steps"] / len(epochs) * summary["batch"]["step"]
        row["pictures_per_second"] = pictures / sorted(row["seconds_per_epoch"])[len(epochs) // 2]
    return row


def _run(arguments: list[str], log: Path, seconds: float) -> tuple[int | None, str]:
    """Run Python with this library for so long at most; its output is added to a file. The exit code is None if time was up."""
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    with log.open("a+") as file:
        begin = file.seek(0, os.SEEK_END)
        code: int | None = None
        command = [sys.executable, *arguments]
        with (
            own_group(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT) as process,
            suppress(subprocess.TimeoutExpired),
        ):
            code = process.wait(timeout=min(seconds, 1e6))
        file.seek(begin)
        return code, file.read()
