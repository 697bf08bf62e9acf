"""The processes of a run: one, or as many as torchrun or SLURM started."""

from __future__ import annotations

import os
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from trevsnn.errors import UsageError
from trevsnn.run.config import RunConfig


def make_fabric(config: RunConfig) -> Fabric:
    """Lightning Fabric on the configured kind of device, one device for each process that torchrun or SLURM started.

    Raises:
        UsageError: the machine has no such device, or fewer than processes; or SLURM's processes were not started by
            ``srun --ntasks-per-node``.
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
    """Whether this is the process that prints and writes; known before there is a Fabric.

    Raises:
        UsageError: as :func:`make_fabric`.
    """
    # Not Fabric's rank_zero_only: it goes by a RANK that something else may have left in the environment.
    environment = _environment()
    return environment is None or environment.global_rank() == 0


def local_batch(config: RunConfig, processes: int) -> int:
    """Items that one process computes at a time: those of a step, over all processes and ``accumulate`` parts.

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
    """Processes on this machine, and machines; 1 and 1 where neither torchrun nor SLURM started any."""
    environment = _environment()
    if environment is None:
        return 1, 1
    world = environment.world_size()
    # Fabric's environments know the number of processes, but not how many there are on a machine.
    if isinstance(environment, TorchElasticEnvironment):
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, world // here
    nodes = int(os.environ.get("SLURM_NNODES", "1"))
    return world // nodes, nodes


def _environment() -> ClusterEnvironment | None:
    """What started this process together with others, as Fabric detects it; None where there are no others."""
    environment: ClusterEnvironment | None = None
    if TorchElasticEnvironment.detect():  # first, as it may run inside SLURM
        environment = TorchElasticEnvironment()
    elif SLURMEnvironment.detect() and "SLURM_PROCID" in os.environ:  # salloc sets the number of tasks, srun this too
        try:
            environment = SLURMEnvironment()
        except RuntimeError as error:  # without --ntasks-per-node
            raise UsageError(f"SLURM's processes cannot be used: {error}") from error
    return environment if environment is not None and environment.world_size() > 1 else None
