"""The processes of a run: one, or as many as torchrun or SLURM started."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric, seed_everything
from lightning_fabric.accelerators import CUDAAccelerator, MPSAccelerator
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy

from trevsnn.errors import RunError, UsageError
from trevsnn.run.config import RunConfig


def make_fabric(config: RunConfig) -> Fabric:
    """Lightning Fabric on the configured kind of device, one device for each process that torchrun or SLURM started.

    Raises:
        UsageError: the machine has no such device, or fewer than processes; or SLURM's processes were not started by
            ``srun --ntasks-per-node``.
    """
    if _under_slurm():
        try:
            SLURMEnvironment()
        except RuntimeError as error:  # without --ntasks-per-node
            raise UsageError(f"SLURM's processes cannot be used: {error}") from error
    here, nodes = _launched()
    _check_accelerator(config.accelerator)
    options: dict[str, Any] = {"devices": here, "num_nodes": nodes, **_precision(config)}
    if here * nodes > 1:
        options["strategy"] = DDPStrategy(gradient_as_bucket_view=True)
    try:
        fabric = Fabric(accelerator=config.accelerator, **options)
        fabric.launch()
    except Exception as error:  # Fabric raises several kinds, each with a sentence of its own
        raise UsageError(
            f"accelerator {config.accelerator!r} cannot be used here ({error}): try accelerator=auto."
        ) from error
    return fabric


def in_first(fabric: Fabric, act: Callable[[], object]) -> None:
    """Do something in the first process alone; where it is refused there, all processes are, with the same sentence.

    Raises:
        RunError, UsageError: as ``act``.
    """
    refusal: RunError | UsageError | None = None
    if fabric.is_global_zero:
        try:
            act()
        except (RunError, UsageError) as error:
            refusal = error
    refusal = fabric.broadcast(refusal)
    if refusal is not None:
        raise refusal


def make_deterministic(seed: int) -> None:
    """Let PyTorch compute the same bits every time, and seed all random generators."""
    # cuBLAS sums in the same order every time with a workspace of its own only. It reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode also fills new memory, to expose reads of what was never written: a fifth of a step's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    seed_everything(seed, verbose=False)


def _check_accelerator(name: str) -> None:
    found = {"cuda": CUDAAccelerator.is_available, "mps": MPSAccelerator.is_available}.get(name)
    if found is not None and not found():
        raise UsageError(
            f"accelerator {name!r} cannot be used here, as PyTorch finds no {name.upper()} device: use 'auto', or 'cpu'."
        )


def is_first() -> bool:
    """Whether this is the process that prints and writes; known before there is a Fabric."""
    # Not Fabric's rank_zero_only: it goes by a RANK that something else may have left in the environment.
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment().global_rank() == 0
    return not _under_slurm() or os.environ["SLURM_PROCID"] == "0"


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
            f"data.mixup, data.cutmix and data.event_mix pair items, but a process has {config.batch_size // parts} at a time: "
            f"make batch_size a multiple of {2 * parts}."
        )
    return config.batch_size // parts


def _precision(config: RunConfig) -> dict[str, Any]:
    """Fabric's options for a precision; it takes bfloat16 for float16 on the CPU, unless it is given the plugin."""
    accelerated = CUDAAccelerator.is_available() or MPSAccelerator.is_available()
    on_cpu = config.accelerator == "cpu" or (config.accelerator == "auto" and not accelerated)
    if config.precision == "16-mixed" and on_cpu:
        return {"plugins": [MixedPrecision(config.precision, "cpu", torch.amp.GradScaler("cpu"))]}
    return {"precision": config.precision}


def _launched() -> tuple[int, int]:
    """Processes on this machine, and machines; 1 and 1 where neither torchrun nor SLURM started any."""
    # Fabric's environments know the number of processes, but not how many there are on a machine.
    if TorchElasticEnvironment.detect():  # first, as it may run inside SLURM
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, TorchElasticEnvironment().world_size() // here
    if _under_slurm():
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        return int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return 1, 1


def _under_slurm() -> bool:
    """Whether srun started this process together with others: salloc sets the number of tasks, srun the process's too."""
    return SLURMEnvironment.detect() and "SLURM_PROCID" in os.environ and int(os.environ["SLURM_NTASKS"]) > 1
