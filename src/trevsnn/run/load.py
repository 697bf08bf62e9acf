"""Loading a trained network: from the folder of its run, from its export, or from the package."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from trevsnn.data.part import About
from trevsnn.errors import RunError
from trevsnn.files import read_json
from trevsnn.network.config import CIRCUMSTANCES
from trevsnn.network.hub import CONFIG, check_finite, weights_sha256
from trevsnn.network.model import TRevSNN
from trevsnn.network.size import check_weights_size, numbers_of
from trevsnn.run.about import read_about
from trevsnn.run.checkpoint import checkpoints, load_checkpoint
from trevsnn.run.config import RunConfig
from trevsnn.run.folder import ABOUT, RunFolder, Weights, is_number, resume_command
from trevsnn.zoo.presets import network_folder

#: Name of a checkpoint.
CHECKPOINT = re.compile(r"(step|best)-\d{1,18}")


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
    folder = network_folder(path)
    run = RunFolder.open(folder)
    config = run.read_config()
    if folder == path:
        config = _as_found(config)
    if (run.path / ABOUT).is_file():
        return _load_exported(run.path, config)
    complete = checkpoints(run.checkpoints, "step" if weights == "last" else "best")
    if not complete:
        raise RunError(f"{path} holds no {weights} checkpoint yet: train it further with {resume_command(path)}.")
    latest, numbers = complete[0], numbers_of(lambda: TRevSNN(config.model))
    tensors, state = load_checkpoint(latest, numbers)
    evaluated = "ema" if "ema" in tensors else "model"
    try:
        check_weights_size(latest / f"{evaluated}.safetensors", numbers)
        model = TRevSNN(config.model)
        slope = read_slope(state.get("slope"))
        about = read_about(state.get("about"), config.model)
        load_weights(model, tensors[evaluated], latest)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"the checkpoint {latest} is damaged ({error}): remove it, or use another.") from error
    check_finite(model, latest / f"{evaluated}.safetensors")
    model.set_slope(slope)
    return LoadedRun(model.eval(), config, about, latest.name)


def _as_found(config: RunConfig) -> RunConfig:
    """The config of a run that somebody else may have made: what only uses it downloads nothing, writes to no cache that the
    config names, and takes no more loading processes than there are cores."""
    workers = min(config.data.workers, os.cpu_count() or 1)
    return replace(config, data=replace(config.data, download=False, cache=None, workers=workers))


def _load_exported(path: Path, config: RunConfig) -> LoadedRun:
    try:
        plain = read_json(path / ABOUT)
        about, checkpoint = read_about(plain["about"], config.model), plain["checkpoint"]
        if not isinstance(checkpoint, str) or not CHECKPOINT.fullmatch(checkpoint):
            raise ValueError(f"checkpoint is {checkpoint!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path / ABOUT} is damaged ({error}): export the model again.") from error
    model = TRevSNN.from_pretrained(path)
    described = replace(config.model, **{name: getattr(model.config, name) for name in CIRCUMSTANCES})
    sha256 = plain.get("weights_sha256")  # earlier versions did not write it
    if described != model.config or sha256 not in (None, weights_sha256(model)):
        raise RunError(f"{path}: {CONFIG}, config.yaml and {ABOUT} are of different networks: export the model again.")
    return LoadedRun(model, config, about, checkpoint)


def read_slope(value: object) -> float:
    """The slope of a checkpoint. Raises ValueError where it is no number of 0..1."""
    if not is_number(value) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ValueError(f"slope is {value!r}")
    return float(value)  # type: ignore[arg-type]


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
