"""The processes of a run: one here, or as many as torchrun or SLURM started."""

from __future__ import annotations

import os
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from trevsnn.errors import UsageError
from trevsnn.run.config import RunConfig


def make_fabric(config: RunConfig) -> Fabric:
    """The configured kind of device, one for each process that torchrun or SLURM started.

    Raises:
        UsageError: the machine has none, or fewer than there are processes.
    """
    here, nodes = _launched()
    options: dict[str, Any] = {"devices": here, "num_nodes": nodes}
    if here * nodes > 1:
        options["strategy"] = DDPStrategy(gradient_as_bucket_view=True)
    try:
        fabric = Fabric(accelerator=config.accelerator, precision=config.precision, **options)
        fabric.launch()
    except Exception as error:  # Fabric raises several kinds, each with a sentence of its own
        raise UsageError(
            f"accelerator {config.accelerator!r} cannot be used here ({error}): try accelerator=auto."
        ) from error
    return fabric


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    if _launched() == (1, 1):
        return True
    return os.environ["RANK" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_PROCID"] == "0"


def local_batch(config: RunConfig, processes: int) -> int:
    """Items of one part of a step in one process.

    Raises:
        UsageError: the step's items cannot be shared out evenly.
    """
    parts = processes * config.accumulate
    if config.batch_size % parts or config.batch_size // parts < 2:
        raise UsageError(
            f"batch_size is {config.batch_size}, to be shared by {processes} processes x {config.accumulate} parts of a "
            f"step: make it a multiple of {parts}, and {2 * parts} at least."
        )
    if config.data.mixes and config.batch_size // parts % 2:
        raise UsageError(
            f"data.mixup and data.cutmix pair items, but a process has {config.batch_size // parts} at a time: "
            f"make batch_size a multiple of {2 * parts}."
        )
    return config.batch_size // parts


def _launched() -> tuple[int, int]:
    """Processes on this machine, and machines, as torchrun or SLURM say; 1 and 1 without them."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, int(os.environ["WORLD_SIZE"]) // here
    if "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        return int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return 1, 1
