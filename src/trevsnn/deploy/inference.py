"""A trained run's accuracy with any engine, and its predictions for single files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from trevsnn.data.config import Split
from trevsnn.data.files import read_inputs
from trevsnn.data.matched import evaluated_splits, load_matched
from trevsnn.data.overrides import AS_TRAINED, DataOverrides
from trevsnn.deploy import Engine
from trevsnn.deploy.engines import accelerator_for, check_size, make_engine
from trevsnn.errors import UsageError
from trevsnn.network.model import TRevSNN
from trevsnn.network.slicing import fast_format
from trevsnn.run.config import Accelerator, RunConfig
from trevsnn.run.load import Weights, load_run
from trevsnn.train.evaluate import evaluate, evaluation_loader, place_inputs
from trevsnn.train.processes import make_fabric


def evaluate_run(
    path: Path, split: Split | None, weights: Weights, accelerator: Accelerator, engine: Engine = "eager",
    data: DataOverrides = AS_TRAINED,
) -> dict[str, Any]:  # fmt: skip
    """Accuracy and loss of a run, in the precision it was trained in, on one part of its data.

    Args:
        path: of the run, of an export, or the name of a network that comes with the package.
        split: the part; None for the last one there is: test, else val.
        weights: which of the run's.
        accelerator: that the model runs on; engines other than "eager" and "folded" run on the CPU.
        engine: that computes the logits.
        data: others than the run's, with the same classes by name, and a size of the input other than the trained one.

    Returns:
        ``run``, ``checkpoint``, ``engine``, ``split``, the number of ``items``, ``accuracy`` in 0..1, ``loss`` (mean cross
        entropy), and for each level ``firing_rates`` of its state and ``hidden_rates`` of its blocks' hidden neurons; both
        are empty but for the engine "eager".

    Raises:
        UsageError: the data have no such part, the engine needs a file that was not exported or is of another size, or a
            library is missing.
        RunError: the run, its data or an exported file cannot be read, or the data's classes are not the network's.
    """
    model, config, about, checkpoint = load_run(path, weights)
    config = replace(config, data=data.over(config.data))
    available = evaluated_splits(config.data)
    chosen = split or available[-1]
    if chosen not in available:
        raise UsageError(f"{config.data.name} has no part {chosen!r}; it has {', '.join(available)}.")
    fabric = make_fabric(replace(config, accelerator=accelerator_for(engine, accelerator)))
    part = load_matched(config.data, chosen, config.model.timesteps, about)
    model = _place(model, fabric, config)
    other = None if engine == "eager" else make_engine(engine, model, path)  # None: the network, with its firing rates
    if other is not None:
        check_size(other, config.data, engine)
    result = evaluate(model, evaluation_loader(part, config, fabric), fabric, other)
    return {
        "run": str(path), "checkpoint": checkpoint, "engine": engine, "split": chosen, "items": len(part),
        "accuracy": result.accuracy, "loss": result.loss, "firing_rates": [row[0] for row in result.rates], "hidden_rates": [row[1:] for row in result.rates],
    }  # fmt: skip


@torch.no_grad()
def predict_run(
    path: Path, files: list[Path], weights: Weights, accelerator: Accelerator, engine: Engine = "eager",
    data: DataOverrides = AS_TRAINED,
) -> list[dict[str, Any]]:  # fmt: skip
    """The class of every picture or recording.

    Args:
        path, weights, accelerator, engine: as in :func:`evaluate_run`.
        files: pictures, or recordings of an event camera.
        data: a size of the input other than the trained one; the files lie where they are.

    Returns:
        For each file ``file``, the likeliest ``class``, its ``probability``, and the ``probabilities`` of all classes.

    Raises:
        UsageError: the engine needs a file that was not exported or is of another size, a library is missing, or ``data``
            says where data lie.
        RunError: the run or an exported file cannot be read.
        UnreadableError: a file of ``files`` is missing, damaged or of another kind.
    """
    if data.place:
        raise UsageError("predict takes the files it is given: leave out data.root and data.name.")
    model, config, about, _ = load_run(path, weights)
    config = replace(config, data=data.over(config.data))
    inputs = read_inputs(files, config.data, about, config.model.timesteps)
    fabric = make_fabric(replace(config, accelerator=accelerator_for(engine, accelerator)))
    model = _place(model, fabric, config)
    inputs = place_inputs(inputs.to(fabric.device), next(model.parameters()).dtype)
    compute = make_engine(engine, model, path)
    check_size(compute, config.data, engine)
    with fabric.autocast():
        logits = compute(inputs)
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
    """The model on the fabric's device, in the layout it is fastest in, in the run's precision."""
    model = model.to(memory_format=fast_format(fabric.device))  # type: ignore[call-overload]
    return model.to(fabric.device, torch.float64 if config.precision == "64-true" else torch.float32)
