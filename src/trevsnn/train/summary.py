"""summary.json, at a run's end."""

from __future__ import annotations

import json
import platform
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from trevsnn.data.part import Part
from trevsnn.files import write_file
from trevsnn.run.config import RunConfig, to_dict
from trevsnn.train.optim import lr_factor
from trevsnn.train.processes import local_batch
from trevsnn.train.report import History


def summarise(
    config: RunConfig, fabric: Fabric, model: nn.Module, parts: Mapping[str, Part], history: History, test: float | None
) -> dict[str, Any]:
    """What is written to summary.json: the run's results, and all that is needed to repeat it.

    Args:
        config: of the run.
        fabric: its processes.
        model: the network.
        parts: of the data, by name.
        history: a row of metrics for each epoch.
        test: accuracy on the test part, None if there is none.
    """
    last = history[-1]
    best = max(history, key=lambda row: row["val_accuracy"])
    return {
        "last_accuracy": last["val_accuracy"],
        "best_accuracy": best["val_accuracy"],
        "best_epoch": int(best["epoch"]),
        "test_accuracy": test,
        "epochs": len(history),
        "parameters": sum(p.numel() for p in model.parameters()),
        **_peak_memory(fabric.device),
        "firing_rates": _values(last, "rate_level"),
        "hidden_rates": [_values(last, f"rate_hidden{level}_") for level in range(len(config.model.channels))],
        "skipped_steps": int(sum(row["skipped_steps"] for row in history)),
        "unreadable": int(sum(row["unreadable"] for row in history)),
        "items": {name: len(part) for name, part in parts.items()},
        "split_sha256": {name: part.digest() for name, part in parts.items()},
        "processes": fabric.world_size,
        "batch": {
            "step": config.batch_size,
            "process": local_batch(config, fabric.world_size),
            "accumulate": config.accumulate,
        },
        "peak_lr": config.optim.lr * lr_factor(config),
        "device": str(fabric.device),
        "machine": f"{processor_name()}, {torch.get_num_threads()} threads a process",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "config": to_dict(config),
    }


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write summary.json. Raises RunError where it cannot be written."""
    write_file(folder / "summary.json", json.dumps(summary, indent=2).encode())


def _peak_memory(device: torch.device) -> dict[str, Any]:
    """The run's peak memory: of tensors on the CUDA device, otherwise of the whole process."""
    if device.type == "cuda":
        return {"peak_memory_bytes": torch.cuda.max_memory_allocated(device), "peak_memory_of": "tensors on the device"}
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    return {"peak_memory_bytes": kib * 1024, "peak_memory_of": "process"}


def processor_name() -> str:
    """The processor's name and the widest instructions that PyTorch uses on it: "AMD EPYC 9654, AVX512"."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # only Linux has it
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _values(row: Mapping[str, float], start: str) -> list[float]:
    """The values of a row of metrics whose names start with ``start``, in their order."""
    return [value for name, value in row.items() if name.startswith(start)]
