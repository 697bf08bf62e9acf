"""The items on which the forms of an export are compared with the network: real ones, or where its data are missing, made-up ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trevsnn.data.loading import calibration_items, real_items
from trevsnn.data.matched import evaluated_splits
from trevsnn.data.overrides import DataOverrides
from trevsnn.data.part import About, MissingDataError
from trevsnn.data.sets import is_event, is_sequence
from trevsnn.deploy import Format
from trevsnn.errors import UsageError
from trevsnn.run.config import RunConfig

CHECKED = 256  # at most so many items, held out from training, on which every form is compared with the network
MADE_UP = 64  # items where there are no data
CALIBRATING = 128  # items of the training part from which the maps' 8-bit ranges are taken
EVENTS_PER_PIXEL = 0.3  # of a made-up frame


@dataclass(frozen=True)
class Items:
    """Inputs of a network.

    Attributes:
        x: on which forms are compared, (N, ...).
        calibration: of the training part; None where there are no data, or nothing is calibrated.
        what: what ``x`` are, to be read after "on".
        real: whether they are of the data, and no random numbers.
    """

    x: Tensor
    calibration: Tensor | None
    what: str
    real: bool


def items_of(config: RunConfig, about: About, data: DataOverrides, formats: tuple[Format, ...] | None) -> Items:
    """The items for an export, of the data that ``config`` names. Nothing is downloaded.

    Args:
        config: of the run, with what ``data`` says.
        about: of the run's data.
        data: what was said of them.
        formats: those asked for; None for all that can be made.

    Raises:
        MissingDataError: the data that ``data`` names are missing.
        UsageError: they are missing, and a format needs them that was asked for by its name.
        RunError: the data cannot be read, or their classes are not the network's.
    """
    own, timesteps = replace(config.data, download=False), config.model.timesteps
    kind = "recordings" if is_event(own) else "pictures"
    try:
        x = real_items(own, timesteps, CHECKED, about)
    except MissingDataError:
        if data.place:
            raise
        if formats is not None and "onnx-int8" in formats:
            raise UsageError(
                f"onnx-int8 needs {kind} to calibrate on, and the data of {own.name} are not there: say where they lie with "
                "--data.root DIR, or leave it out of --formats."
            ) from None
        warnings.warn(
            f"the data of {own.name} are not there, so the forms are compared on {MADE_UP} made-up inputs"
            f"{'' if formats is not None else f', and model-int8.onnx, which needs {kind} to calibrate on, is left out'}: say "
            "where they lie with --data.root DIR.",
            stacklevel=2,
        )
        return Items(
            _made_up(config, about), None, f"{MADE_UP} made-up inputs of random numbers, no {kind}", real=False
        )
    integer = formats is None or "onnx-int8" in formats
    calibration = calibration_items(own, timesteps, CALIBRATING, about) if integer else None
    split = evaluated_splits(own)[-1]
    what = (
        f"{kind} it was not trained on" if not data.place else f"{kind} of the part {split} of data named at its export"
    )
    return Items(x, calibration, what, real=True)


def _made_up(config: RunConfig, about: About) -> Tensor:
    """Normalised pictures, or their rows, of normal random numbers; or frames of Poisson counts, scaled as those of
    recordings. The same ones each time."""
    dice = torch.Generator().manual_seed(0)
    height, width = config.data.size_HW
    frames = (config.model.timesteps,) if is_sequence(config.data) else ()
    shape = (MADE_UP, *frames, about.channels, 1 if config.data.rows else height, width)
    if not is_event(config.data):
        return torch.randn(shape, generator=dice)
    counts = torch.poisson(torch.full(shape, EVENTS_PER_PIXEL), dice)
    return counts / counts[counts > 0].mean()
