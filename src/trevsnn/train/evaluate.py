"""Accuracy of a trained run, and predictions for single files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from trevsnn.data.part import About, Part, Split
from trevsnn.data.sampling import EpochSampler
from trevsnn.data.sets import IGNORED, TensorDataset, batches, load, loading_deaths, make_loader, read_inputs, splits
from trevsnn.deploy.engines import Engine, make_engine
from trevsnn.errors import RunError, UsageError
from trevsnn.network.model import TRevSNN
from trevsnn.run.checkpoint import checkpoints, load_checkpoint
from trevsnn.run.config import Accelerator, RunConfig
from trevsnn.run.folder import ABOUT, RunFolder
from trevsnn.train.processes import local_batch, make_fabric
from trevsnn.zoo.presets import pretrained_folder

Weights = Literal["last", "best"]


@dataclass(frozen=True)
class Evaluation:
    """What running over a part of the data came to.

    Attributes:
        loss: plain cross entropy of the last head.
        accuracy: in 0..1.
        rates: for each level the firing rates of its state and of its blocks' hidden neurons, means over the steps;
            empty where not the network itself ran.
    """

    loss: float
    accuracy: float
    rates: list[list[float]]


def evaluation_loader(part: Part, config: RunConfig, fabric: Fabric) -> DataLoader[Any]:
    """All items once, in order, without augmentation, shared out among the processes."""
    dataset = TensorDataset(part, config.data, config.seed, training=False)
    sampler = EpochSampler(len(dataset), config.seed, shuffle=False, rank=fabric.global_rank, world=fabric.world_size)
    size = local_batch(config, fabric.world_size)
    return make_loader(dataset, sampler, size, config.data, pin=fabric.device.type == "cuda")


def place_inputs(inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Inputs in the model's dtype, pictures channels-last."""
    return inputs.to(dtype, memory_format=torch.channels_last) if inputs.dim() == 4 else inputs.to(dtype)


@loading_deaths()
@torch.no_grad()
def evaluate(
    model: TRevSNN,
    loader: DataLoader[Any],
    fabric: Fabric,
    engine: Callable[[Tensor], Tensor] | None = None,
) -> Evaluation:
    """Run ``model``, in evaluation mode, over every item of ``loader`` that can be read, each in one process.

    Args:
        model: on the fabric's device.
        loader: of its inputs, labels and numbers.
        fabric: that it runs on.
        engine: what computes the logits in the model's place; None for the model.

    Raises:
        RunError: none can be read.
    """
    model.eval()
    classes = model.num_classes
    accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=IGNORED).to(fabric.device)
    loss = MeanMetric().to(fabric.device)
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
                logits, found = model.forward_with_rates(inputs)
                for metrics, row in zip(rates, found.by_level(), strict=True):
                    for metric, rate in zip(metrics, row, strict=True):
                        metric.update(rate, counted)
            else:
                logits = engine(inputs)
        accuracy.update(logits.float(), labels)
        loss.update(nn.functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED), counted)
    rows = [[float(metric.compute()) for metric in metrics] for metrics in rates] if engine is None else []
    return Evaluation(float(loss.compute()), float(accuracy.compute()), rows)


def load_run(path: Path, weights: Weights) -> tuple[TRevSNN, RunConfig, About, str]:
    """The model of a run with its last or best weights, of a folder that it was exported to, or of one that comes with
    the package, by its name, in evaluation mode.

    Returns:
        Model, config, what is to be known of the data, and the checkpoint's name.

    Raises:
        RunError: no such run, no checkpoint yet, or a damaged one.
    """
    if not path.exists():
        path = pretrained_folder(str(path)) or path
    run = RunFolder.open(path)
    config = run.read_config()
    if (path / ABOUT).is_file():
        return _load_exported(path, config)
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
    return model.eval(), config, _about(state["about"]), found[0].name


def _load_exported(path: Path, config: RunConfig) -> tuple[TRevSNN, RunConfig, About, str]:
    try:
        plain = json.loads((path / ABOUT).read_text())
        about, checkpoint = _about(plain["about"]), plain["checkpoint"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path / ABOUT} is damaged ({error}): export the model again.") from error
    return TRevSNN.from_pretrained(path), config, about, checkpoint


def _about(plain: dict[str, Any]) -> About:
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}
    return About(**fields)


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], source: Path) -> None:
    """``load_state_dict`` with the error in one sentence."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise RunError(
            f"{source} holds the weights of another model than its run's config describes: {first}"
        ) from error


def evaluate_run(
    path: Path, split: Split | None, weights: Weights, accelerator: Accelerator, engine: Engine = "eager"
) -> dict[str, Any]:
    """Evaluate a run, in its own precision, on one part of its data; None for the last part it has (test, else val)."""
    model, config, _, checkpoint = load_run(path, weights)
    available = splits(config.data)
    chosen = split or available[-1]
    if chosen not in available:
        raise UsageError(f"{config.data.name} has no part {chosen!r}; it has {', '.join(available)}.")
    fabric = make_fabric(replace(config, accelerator=accelerator))
    part = load(config.data, chosen, config.model.timesteps)
    model = _place(model, fabric, config)
    computes = None if engine == "eager" else make_engine(engine, model, path)
    result = evaluate(model, evaluation_loader(part, config, fabric), fabric, computes)
    return {
        "run": str(path), "checkpoint": checkpoint, "engine": engine, "split": chosen, "items": len(part),
        "accuracy": result.accuracy, "loss": result.loss, "firing_rates": [row[0] for row in result.rates], "hidden_rates": [row[1:] for row in result.rates],
    }  # fmt: skip


@torch.no_grad()
def predict_run(
    path: Path, files: list[Path], weights: Weights, accelerator: Accelerator, engine: Engine = "eager"
) -> list[dict[str, Any]]:
    """The class of every picture or recording, its probability, and those of all classes."""
    model, config, about, _ = load_run(path, weights)
    inputs = read_inputs(files, config.data, about, config.model.timesteps)
    fabric = make_fabric(replace(config, accelerator=accelerator))
    model = _place(model, fabric, config)
    inputs = place_inputs(inputs.to(fabric.device), next(model.parameters()).dtype)
    with fabric.autocast():
        logits = make_engine(engine, model, path)(inputs)
    rows = logits.double().softmax(1).tolist()
    return [
        {
            "file": str(file),
            "class": about.classes[max(range(len(row)), key=row.__getitem__)],
            "probability": max(row),
            "probabilities": dict(zip(about.classes, row, strict=True)),
        }
        for file, row in zip(files, rows, strict=True)
    ]


def _place(model: TRevSNN, fabric: Fabric, config: RunConfig) -> TRevSNN:
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(fabric.device, torch.float64 if config.precision == "64-true" else torch.float32)
