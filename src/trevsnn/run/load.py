"""A trained run's network and its weights, from its folder, its export, or the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trevsnn.data.part import About
from trevsnn.errors import RunError
from trevsnn.network.model import TRevSNN
from trevsnn.run.checkpoint import checkpoints, load_checkpoint
from trevsnn.run.config import RunConfig
from trevsnn.run.folder import ABOUT, RunFolder, Weights
from trevsnn.zoo.presets import pretrained_folder


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
