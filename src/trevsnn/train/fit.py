"""The checks that model, data and device fit, at a run's beginning."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric

from trevsnn.data.part import Part
from trevsnn.errors import MistakesError, UsageError
from trevsnn.network.kernels.choice import check_kernels
from trevsnn.reversible.precision import Precision
from trevsnn.run.config import RunConfig
from trevsnn.run.misfits import Facts, idle, misfits
from trevsnn.train.graph import check_capturable


def check_device(config: RunConfig, fabric: Fabric) -> None:
    """Check that a CUDA graph and kernels, where a config insists on them, run on the device.

    Raises:
        UsageError: they do not, or not in the run's precision.
    """
    if config.cuda_graph:
        check_capturable(fabric)
    with fabric.autocast():
        dtype = Precision.current(fabric.device).compute_dtype(torch.get_default_dtype())
    try:
        check_kernels(config.model.kernels, fabric.device, dtype)
    except ValueError as error:
        raise UsageError(f"model.{error}") from error


def check_fit(config: RunConfig, part: Part, *, new: bool) -> None:
    """Check that model and data fit.

    Args:
        config: of the run.
        part: the training part.
        new: whether the run begins; one that goes on may have options that do nothing.

    Raises:
        MistakesError: input kind, classes, channels, colour augmentation or batch size do not fit the data.
    """
    found = misfits(config, Facts(len(part.classes), part.channels, len(part))) + (idle(config) if new else [])
    if found:
        raise MistakesError([misfit.sentence for misfit in found])
