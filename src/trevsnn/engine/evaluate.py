"""Accuracy of a trained run, and predictions for single pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from trevsnn.config import RunConfig
from trevsnn.data.images import EpochSampler, PictureDataset, Pictures, Split, load, read_pictures, splits
from trevsnn.engine.checkpoint import checkpoints, load_checkpoint
from trevsnn.engine.run_folder import RunFolder
from trevsnn.errors import RunError, UsageError
from trevsnn.model import TRevSNN

Weights = Literal["last", "best"]


@dataclass(frozen=True)
class Evaluation:
    """Loss (plain cross entropy of the last head), accuracy in 0..1 and the levels' mean firing rates in 0..1."""

    loss: float
    accuracy: float
    firing_rates: list[float]


def evaluation_loader(pictures: Pictures, config: RunConfig) -> DataLoader[Any]:
    """All pictures once, in order, without augmentation."""
    dataset = PictureDataset(pictures, config.data, config.seed, training=False)
    sampler = EpochSampler(len(dataset), config.seed, shuffle=False)
    return DataLoader(dataset, config.batch_size, sampler=sampler, num_workers=config.data.workers,
                      generator=torch.Generator())  # fmt: skip


@torch.no_grad()
def evaluate(model: TRevSNN, loader: DataLoader[Any], fabric: Fabric) -> Evaluation:
    """Run ``model``, in evaluation mode, over every picture of ``loader``."""
    model.eval()
    accuracy = MulticlassAccuracy(model.num_classes, average="micro").to(fabric.device)
    loss = MeanMetric().to(fabric.device)
    rates = [MeanMetric().to(fabric.device) for _ in model.config.channels]
    dtype = next(model.parameters()).dtype
    for batch in loader:
        images, labels = (part.to(fabric.device) for part in batch)
        with fabric.autocast():
            logits, rates_LT = model.forward_with_rates(images.to(dtype))
        accuracy.update(logits.float(), labels)
        loss.update(nn.functional.cross_entropy(logits.float(), labels), len(labels))
        for metric, rate in zip(rates, rates_LT.float().mean(1), strict=True):
            metric.update(rate, len(labels))
    return Evaluation(float(loss.compute()), float(accuracy.compute()), [float(m.compute()) for m in rates])


def load_run(path: Path, weights: Weights) -> tuple[TRevSNN, RunConfig, dict[str, Any]]:
    """The model of a run with its last or best weights, in evaluation mode.

    Returns:
        Model, config, and what the checkpoint says of itself: epoch, slope, classes, mean, std, checkpoint (its name).

    Raises:
        RunError: no such run, no checkpoint yet, or a damaged one.
    """
    run = RunFolder.open(path)
    config = run.read_config()
    kind = "step" if weights == "last" else "best"
    found = checkpoints(run.checkpoints, kind)
    if not found:
        raise RunError(
            f"{path} holds no {weights} checkpoint yet: train it further with trevsnn train --resume {path}."
        )
    parts, state = load_checkpoint(found[0])
    model = TRevSNN(config.model)
    load_weights(model, parts.get("ema", parts["model"]), found[0])
    model.set_slope(state["slope"])
    return model.eval(), config, {**state["about"], "checkpoint": found[0].name}


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], source: Path) -> None:
    """``load_state_dict`` with the error in one sentence."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise RunError(
            f"{source} holds the weights of another model than its run's config describes: {first}"
        ) from error


def evaluate_run(path: Path, split: Split | None, weights: Weights, fabric: Fabric) -> dict[str, Any]:
    """Evaluate a run on one part of its data; None for the last part it has (test, else val)."""
    model, config, about = load_run(path, weights)
    available = splits(config.data)
    chosen = split or available[-1]
    if chosen not in available:
        raise UsageError(f"{config.data.name} has no part {chosen!r}; it has {', '.join(available)}.")
    model = _place(model, fabric, config)
    pictures = load(config.data, chosen)
    result = evaluate(model, evaluation_loader(pictures, config), fabric)
    return {
        "run": str(path), "checkpoint": about["checkpoint"], "split": chosen, "pictures": len(pictures.labels_N),
        "accuracy": result.accuracy, "loss": result.loss, "firing_rates": result.firing_rates,
    }  # fmt: skip


@torch.no_grad()
def predict_run(path: Path, pictures: list[Path], weights: Weights, fabric: Fabric) -> list[dict[str, Any]]:
    """The class of every picture file, its probability, and those of all classes."""
    model, config, about = load_run(path, weights)
    if config.model.input != "image":
        raise UsageError(f"{path} was trained on event frames; predict takes pictures.")
    images = read_pictures(pictures, config.data, about["mean"], about["std"])
    model = _place(model, fabric, config)
    with fabric.autocast():
        logits = model(images.to(fabric.device, next(model.parameters()).dtype))
    rows = logits.double().softmax(1).tolist()
    classes = about["classes"]
    return [
        {
            "file": str(file),
            "class": classes[max(range(len(row)), key=row.__getitem__)],
            "probability": max(row),
            "probabilities": dict(zip(classes, row, strict=True)),
        }
        for file, row in zip(pictures, rows, strict=True)
    ]


def _place(model: TRevSNN, fabric: Fabric, config: RunConfig) -> TRevSNN:
    return model.to(fabric.device, torch.float64 if config.precision == "64-true" else torch.float32)
