"""Single files, pictures or recordings, as inputs of a trained network."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trevsnn.data.config import DataConfig
from trevsnn.data.events.excerpts import first_piece
from trevsnn.data.events.frames import Binning, Counts
from trevsnn.data.events.recordings import READERS, Events, read_recording
from trevsnn.data.events.table import TABLE
from trevsnn.data.part import About
from trevsnn.data.pictures.file import PICTURE_ENDINGS, PictureFile
from trevsnn.data.sets import is_event, transform_of
from trevsnn.data.walk import walk
from trevsnn.errors import RunError, UnreadableError


def find_inputs(paths: Sequence[Path], config: DataConfig) -> list[Path]:
    """The files that are meant: those that are given, and of a folder every picture, or for a run on events every recording,
    at any depth, through links, sorted, known by the ends of their names. What is hidden is left out.

    Raises:
        RunError: a folder holds none.
    """
    kind, endings = ("recordings", tuple(READERS)) if is_event(config) else ("pictures", PICTURE_ENDINGS)
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        own = [f for f in walk(path).files if f.suffix.lower() in endings and f.name != TABLE]
        if not own:
            raise RunError(
                f"the folder {path} holds no {kind}: of files, it takes those that end in {', '.join(endings)}."
            )
        files += own
    return files


def read_inputs(paths: list[Path], config: DataConfig, about: About, timesteps: int) -> Tensor:
    """Files of the kind that a run was trained on as one float32 batch, prepared as for evaluation.

    Args:
        paths: pictures or recordings. Of a recording a run that was trained on pieces (``piece_ms``) takes the first piece.
        config: data.* of the run.
        about: of the run's data.
        timesteps: T of the run.

    Returns:
        Pictures (B, C, H, W) or their rows (B, T, C, 1, W), or frames (B, T, 2, H, W), H x W being ``config.image_size``.

    Raises:
        UnreadableError: a file is missing, damaged, of another kind, shorter than a piece, or has events outside the run's
            sensor.
        RunError: a recording's file name ends in something unknown, or frames are to be larger than the sensor.
        UsageError: the library that reads the recordings is not installed.
    """
    transform = transform_of(config, about, timesteps, training=False)
    if is_event(config):
        binning = Binning.of(config, timesteps)
        return torch.stack([transform(_frames(path, config, binning)) for path in paths])
    return torch.stack([transform(_picture(path, config, about.channels)) for path in paths])


def read_item(path: Path, config: DataConfig) -> Events:
    """A recording as a run takes it, whole or its first piece.

    Raises:
        ValueError: it is shorter than a piece.
        UnreadableError, RunError, UsageError: as :func:`trevsnn.data.events.recordings.read_recording`.
    """
    events = read_recording(path, config.convention)
    return events if config.piece_ms is None else first_piece(events, config.piece_ms)


def _picture(path: Path, config: DataConfig, channels: int) -> Any:
    if path.suffix.lower() in READERS:
        raise UnreadableError(f"{path} is a recording, and the run was trained on pictures: give it a picture.")
    file = PictureFile.of(path, grey=channels == 1, exif_orientation=config.exif_orientation)
    return file if config.reduced else file.decode()


def _frames(path: Path, config: DataConfig, binning: Binning) -> Counts:
    if path.suffix.lower() in PICTURE_ENDINGS:
        raise UnreadableError(f"{path} is a picture, and the run was trained on recordings: give it a recording.")
    try:
        counts_TCHW, dropped, first = binning(read_item(path, config))
    except ValueError as error:
        raise UnreadableError(f"{path} does not fit the run's data set: {error}.") from error
    if dropped:
        warnings.warn(f"{dropped} events outside the sensor were dropped: of {path} {first}", stacklevel=2)
    return counts_TCHW
