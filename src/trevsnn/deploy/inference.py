"""Accuracy of a trained run by any engine, and predictions for single files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from trevsnn.data.files import read_inputs
from trevsnn.data.part import Split
from trevsnn.data.sets import load, splits
from trevsnn.deploy.engines import Engine, make_engine
from trevsnn.errors import UsageError
from trevsnn.network.model import TRevSNN
from trevsnn.run.config import Accelerator, RunConfig
from trevsnn.run.load import Weights, load_run
from trevsnn.train.evaluate import evaluate, evaluation_loader, place_inputs
from trevsnn.train.processes import make_fabric


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
