"""Events counted into frames, once, and kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from trevsnn.data.config import BinBy, DataConfig
from trevsnn.data.events.excerpts import each, file_of, read_excerpt
from trevsnn.data.events.recordings import Events
from trevsnn.data.part import CACHE, FileList, UnreadableError
from trevsnn.errors import RunError
from trevsnn.sizes import Size, height_and_width
from trevsnn.terminal import Terminal

CACHE_VERSION = 1  # raise it when the same parameters come to give other frames


def bin_events(events: Events, frames: int, size: Size, sensor: tuple[int, int], by: BinBy) -> NDArray[np.uint8]:
    """Count events per frame, polarity and pixel.

    Args:
        events: at least one, in the order of time (:func:`trevsnn.data.events.recordings.read_recording`).
        frames: T.
        size: of a frame, H x W. An event at (x, y) is counted in column x W // width and row y H // height of the sensor, so
            none is lost or counted twice.
        sensor: width and height in pixels.
        by: "count" gives every frame as many events, "time" as many microseconds.

    Returns:
        (T, 2, H, W), polarities darker and brighter; 255 stands for 255 events or more.

    Raises:
        ValueError: an event lies outside the sensor.
    """
    (width, height), (rows, columns) = sensor, height_and_width(size)
    x, y = events["x"].astype(np.int64), events["y"].astype(np.int64)
    if x.min() < 0 or y.min() < 0 or x.max() >= width or y.max() >= height:
        raise ValueError(f"it has an event at ({x.max()}, {y.max()}), outside a sensor of {width} x {height} pixels")
    frame = frame_numbers(events, frames, by)
    place = ((frame * 2 + events["p"]) * rows + y * rows // height) * columns + x * columns // width
    counts = np.bincount(place, minlength=frames * 2 * rows * columns)
    return np.minimum(counts, 255).astype(np.uint8).reshape(frames, 2, rows, columns)


def check_size(size: Size, sensor: tuple[int, int]) -> None:
    """Check that frames are no larger than the sensor, (width, height), in either direction.

    Raises:
        RunError: they are.
    """
    (rows, columns), (width, height) = height_and_width(size), sensor
    if rows > height or columns > width:
        square = isinstance(size, int)
        most = min(sensor) if square else [min(rows, height), min(columns, width)]
        raise RunError(
            f"data.image_size is {size if square else list(size)}, but the sensor has {width} x {height} pixels"
            f"{'' if square else ' (width x height)'}: set it to {most} at most."
        )


def frame_numbers(events: Events, frames: int, by: BinBy) -> NDArray[np.int64]:
    """The frame in 0..T-1 that each event belongs to, never decreasing. See :func:`bin_events`."""
    if by == "count":
        return np.arange(len(events)) * frames // len(events)
    since = events["t"] - events["t"][0]
    return since * frames // (since[-1] + 1)


class EventFrames(FileList):
    """Recordings as frames (T, 2, H, W), uint8, binned once and kept in one file of the cache.

    The file is named by a hash of everything its content depends on: the excerpts' names, their files' sizes and times of
    change, and the parameters of :func:`bin_events`.

    Args:
        listing: the recordings, or excerpts of them (:func:`trevsnn.data.events.excerpts.read_excerpt`), and labels.
        frames, sensor: see :func:`bin_events`.
        config: for ``image_size``, ``bin_by``, ``cache`` and ``workers``.

    Raises:
        RunError: ``image_size`` is larger than the sensor, or the cache cannot be written.
        UnreadableError: a recording is missing, damaged, or has events outside the sensor.
        UsageError: the library that reads the recordings is not installed.
    """

    channels = 2
    mean, std = (0.0, 0.0), (1.0, 1.0)

    def __init__(self, listing: FileList, frames: int, sensor: tuple[int, int], config: DataConfig) -> None:
        super().__init__(listing.root, listing.files, listing.labels_N.tolist(), listing.classes)
        size, by = config.image_size, config.bin_by
        check_size(size, sensor)
        self._shape = (len(self.files), frames, 2, *config.size_HW)
        key = [CACHE_VERSION, str(self.root.resolve()), *self._shape, *sensor, by]
        digest = hashlib.sha256(json.dumps([*key, *map(self._stamp, self.files)]).encode()).hexdigest()
        self.cache = Path(config.cache or CACHE / "frames") / f"{digest[:32]}.npy"
        if not self.cache.is_file():
            self._fill(partial(_binned, self.root, frames, size, sensor, by), config.workers)
        self._frames_NTCHW = np.load(self.cache, mmap_mode="r")

    def read(self, index: int) -> NDArray[np.uint8]:
        return np.asarray(self._frames_NTCHW[index])

    def _stamp(self, file: str) -> tuple[str, int, int]:
        """An item's name, and the size and time of change of its file."""
        try:
            about = (self.root / file_of(file)).stat()
        except OSError as error:
            raise UnreadableError(f"{self.root / file} does not exist: has the data folder moved?") from error
        return file, about.st_size, about.st_mtime_ns

    def _fill(self, binned: Callable[[str], NDArray[np.uint8]], workers: int) -> None:
        """Write the cache's file under another name and rename it: another process may do the same at the same time."""
        beside = self.cache.with_name(f".{self.cache.stem}.{os.getpid()}.part")
        try:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            out = np.lib.format.open_memmap(beside, mode="w+", dtype=np.uint8, shape=self._shape)
            every = each(binned, self.files, workers)
            # On stderr, as stdout may be JSON.
            every = track(every, "binning events", len(self), console=Terminal(stderr=True))
            for index, frames_TCHW in enumerate(every):
                out[index] = frames_TCHW
            out.flush()
            beside.replace(self.cache)
        except OSError as error:
            raise RunError(
                f"the cache {self.cache.parent} cannot be written ({error.strerror}): set data.cache."
            ) from error
        finally:
            with contextlib.suppress(OSError):
                beside.unlink()


def _binned(root: Path, frames: int, size: Size, sensor: tuple[int, int], by: BinBy, file: str) -> NDArray[np.uint8]:
    try:
        return bin_events(read_excerpt(root, file), frames, size, sensor, by)
    except ValueError as error:
        raise UnreadableError(f"{root / file} does not fit its data set: {error}.") from error
