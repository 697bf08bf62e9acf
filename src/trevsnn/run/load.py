"""Loading a trained network: from the folder of its run, from its export, or from the package."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from trevsnn.data.part import About
from trevsnn.errors import RunError
from trevsnn.network.config import CIRCUMSTANCES
from trevsnn.network.hub import CONFIG, check_finite
from trevsnn.network.model import TRevSNN
from trevsnn.run.checkpoint import checkpoints, load_checkpoint
from trevsnn.run.config import RunConfig
from trevsnn.run.folder import ABOUT, RunFolder, Weights
from trevsnn.zoo.presets import pretrained_folder


class LoadedRun(NamedTuple):
    """A trained network and what it was trained on.

    Attributes:
        model: with its trained weights, in evaluation mode.
        config: of the run.
        about: what the network must know of its data.
        checkpoint: name of the checkpoint that the weights are from.
    """

    model: TRevSNN
    config: RunConfig
    about: About
    checkpoint: str


def load_run(path: Path, weights: Weights) -> LoadedRun:
    """Load the trained network of a run, of an export, or of the package.

    Args:
        path: folder of a run or of its export, or the name of a network that comes trained, such as "digits".
        weights: of a run. An export has but one set of weights, and is loaded with these.

    Raises:
        RunError: there is no such run, it has no checkpoint yet, a file is damaged, or a weight is not finite.
    """
    if not path.exists():
        path = pretrained_folder(str(path)) or path
    run = RunFolder.open(path)
    config = run.read_config()
    if (path / ABOUT).is_file():
        return _load_exported(path, config)
    complete = checkpoints(run.checkpoints, "step" if weights == "last" else "best")
    if not complete:
        raise RunError(
            f"{path} holds no {weights} checkpoint yet: train it further with trevsnn train --resume {path}."
        )
    latest = complete[0]
    tensors, state = load_checkpoint(latest)
    model = TRevSNN(config.model)
    evaluated = "ema" if "ema" in tensors else "model"
    load_weights(model, tensors[evaluated], latest)
    check_finite(model, latest / f"{evaluated}.safetensors")
    model.set_slope(state["slope"])
    return LoadedRun(model.eval(), config, _about(state["about"]), latest.name)


def _load_exported(path: Path, config: RunConfig) -> LoadedRun:
    try:
        plain = json.loads((path / ABOUT).read_text())
        about, checkpoint = _about(plain["about"]), plain["checkpoint"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path / ABOUT} is damaged ({error}): export the model again.") from error
    model = TRevSNN.from_pretrained(path)
    described = replace(config.model, **{name: getattr(model.config, name) for name in CIRCUMSTANCES})
    if described != model.config or len(about.classes) != model.config.num_classes:
        raise RunError(f"{path}: {CONFIG}, config.yaml and {ABOUT} are of different networks: export the model again.")
    return LoadedRun(model, config, about, checkpoint)


def _about(plain: dict[str, Any]) -> About:
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}
    return About(**fields)


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], source: Path) -> None:
    """``load_state_dict``.

    Args:
        model: whose weights are replaced.
        weights: by name.
        source: where they are from, for the message.

    Raises:
        RunError: they are of another model.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise RunError(
            f"{source} holds the weights of another model than its run's config describes: {first}"
        ) from error
