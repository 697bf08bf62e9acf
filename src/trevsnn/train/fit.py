"""The checks that model, data and device fit, at a run's beginning."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric

from trevsnn.data.part import Part
from trevsnn.data.sets import is_event, is_sequence
from trevsnn.errors import UsageError
from trevsnn.network.kernels.choice import check_kernels
from trevsnn.reversible.precision import Precision
from trevsnn.run.config import RunConfig
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


def check_fit(config: RunConfig, part: Part) -> None:
    """Check that model and data fit.

    Args:
        config: of the run.
        part: the training part.

    Raises:
        UsageError: input kind, classes, channels, colour augmentation or batch size do not fit the data.
    """
    model, name, classes = config.model, config.data.name, len(part.classes)
    needed = "event" if is_sequence(config.data) else "image"
    if model.input != needed:
        kind = "recordings" if is_event(config.data) else "seen row by row" if config.data.rows else "pictures"
        raise UsageError(f"model.input is {model.input!r}, but {name} are {kind}: set model.input to {needed}.")
    if model.num_classes != classes:
        raise UsageError(f"model.num_classes is {model.num_classes}, but {name} has {classes}: set it to {classes}.")
    if model.in_chans != part.channels:
        what = {1: "grey", 2: "of two polarities", 3: "in colour"}[part.channels]
        raise UsageError(f"model.in_chans is {model.in_chans}, but {name} are {what}: set it to {part.channels}.")
    if part.channels == 1 and (config.data.auto_augment or config.data.color_jitter):
        raise UsageError(
            f"data.auto_augment and data.color_jitter are for colours, but {name} are grey: leave them out."
        )
    if config.batch_size > len(part):
        raise UsageError(f"batch_size is {config.batch_size}, more than the {len(part)} training items: lower it.")
