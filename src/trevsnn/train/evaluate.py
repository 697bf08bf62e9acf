"""Loss, accuracy and firing rates of a network on a part of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from trevsnn.data.loading import IGNORED, TensorDataset, batches, ending_processes, loading_deaths, make_loader
from trevsnn.data.part import Part
from trevsnn.data.pictures.on_device import DeviceLoader
from trevsnn.data.sampling import EpochSampler
from trevsnn.network.model import TRevSNN
from trevsnn.network.slicing import fast_format
from trevsnn.run.config import RunConfig
from trevsnn.train.processes import local_batch

TOP = 5  # how many of the likeliest classes may hold the right one


@dataclass(frozen=True)
class Evaluation:
    """Figures of a network on a part of the data.

    Attributes:
        loss: mean cross entropy of the last head, without label smoothing.
        accuracy: in 0..1.
        rates: for each level the firing rates, in 0..1, of its state and of its two blocks' hidden neurons, means over
            timesteps and items; empty where another engine computed the logits.
        top5: share of the items, in 0..1, whose class is among the five likeliest; None where there are five classes or
            fewer, or nothing was asked for by class.
        confusion_KK: items by their class (rows) and the one they were taken for (columns), int64, on the CPU; None where
            nothing was asked for by class.
    """

    loss: float
    accuracy: float
    rates: list[list[float]]
    top5: float | None = None
    confusion_KK: Tensor | None = None


def evaluation_loader(part: Part, config: RunConfig, fabric: Fabric) -> DataLoader[Any] | DeviceLoader:
    """A loader of all items of a part, in order and without augmentation, each in one process.

    Raises:
        UsageError: as :func:`trevsnn.train.processes.local_batch` and :func:`trevsnn.data.loading.make_loader`.
    """
    dataset = TensorDataset(part, config.data, config.seed, timesteps=config.model.timesteps, training=False)
    sampler = EpochSampler(len(dataset), config.seed, shuffle=False, rank=fabric.global_rank, world=fabric.world_size)
    size = local_batch(config, fabric.world_size)
    return make_loader(dataset, sampler, size, config.data, fabric.device)


def place_inputs(inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Inputs as the model takes them: pictures (B, C, H, W) or frames (B, T, C, H, W), in its dtype, pictures in the layout
    that their device is fastest in."""
    return inputs.to(dtype, memory_format=fast_format(inputs.device)) if inputs.dim() == 4 else inputs.to(dtype)


@loading_deaths()
@torch.no_grad()
def evaluate(
    model: TRevSNN,
    loader: Iterable[Any],
    fabric: Fabric,
    engine: Callable[[Tensor], Tensor] | None = None,
    *,
    by_class: bool = False,
) -> Evaluation:
    """Run ``model``, in evaluation mode, over every item of ``loader`` that can be read.

    Args:
        model: on the fabric's device.
        loader: of :func:`evaluation_loader`, or its batches.
        fabric: the processes; the figures are those of all of them together.
        engine: from inputs to logits, in the model's place; None for the model.
        by_class: count ``top5`` and ``confusion_KK`` too.

    Raises:
        RunError: an item cannot be read (``on_unreadable="fail"``), none can, or a loading process died.
    """
    model.eval()
    classes = model.num_classes
    accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=IGNORED).to(fabric.device)
    loss = MeanMetric().to(fabric.device)
    confusion = MulticlassConfusionMatrix(classes).to(fabric.device) if by_class else None
    top5 = MulticlassAccuracy(classes, TOP, "micro").to(fabric.device) if by_class and classes > TOP else None
    rates = [[MeanMetric().to(fabric.device) for _ in range(3)] for _ in model.config.channels]
    dtype = next(model.parameters()).dtype
    for batch in batches(loader):
        inputs, labels, _ = (part.to(fabric.device) for part in batch)
        counted = int((labels != IGNORED).sum())
        if not counted:
            continue
        inputs = place_inputs(inputs, dtype)
        with fabric.autocast():
            if engine is None:
                logits, batch_rates = model.forward_with_rates(inputs)
                for metrics, level_rates in zip(rates, batch_rates.by_level(), strict=True):
                    for metric, rate in zip(metrics, level_rates, strict=True):
                        metric.update(rate, counted)
            else:
                logits = engine(inputs)
        accuracy.update(logits.float(), labels)
        loss.update(nn.functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED), counted)
        if confusion is not None:
            readable = labels != IGNORED
            confusion.update(logits[readable].float(), labels[readable])
            if top5 is not None:
                top5.update(logits[readable].float(), labels[readable])
    means = [[float(metric.compute()) for metric in metrics] for metrics in rates] if engine is None else []
    return Evaluation(
        float(loss.compute()), float(accuracy.compute()), means,
        None if top5 is None else float(top5.compute()), None if confusion is None else confusion.compute().cpu(),
    )  # fmt: skip


def evaluate_part(
    model: TRevSNN,
    part: Part,
    config: RunConfig,
    fabric: Fabric,
    engine: Callable[[Tensor], Tensor] | None = None,
    *,
    by_class: bool = False,
) -> Evaluation:
    """:func:`evaluate` over all items of a part, once: whether it ends well or not, no loading process outlives it.

    Raises:
        UsageError: as :func:`evaluation_loader`.
        RunError: as :func:`evaluate`.
    """
    loader = evaluation_loader(part, config, fabric)
    with ending_processes(loader):
        return evaluate(model, loader, fabric, engine, by_class=by_class)
