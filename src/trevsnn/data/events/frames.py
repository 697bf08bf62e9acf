"""Events counted into frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.config import BinBy, DataConfig
from trevsnn.data.events.recordings import Events
from trevsnn.errors import RunError
from trevsnn.sizes import Size, height_and_width

#: How many events of each frame, polarity (darker, brighter) and pixel: (T, 2, H, W), of the smallest of uint8, uint16, uint32 and
#: uint64 that holds every count.
Counts = NDArray[np.unsignedinteger[Any]]


def bin_events(
    events: Events, frames: int, size: Size, sensor: tuple[int, int], by: BinBy, *, letterbox: bool = False
) -> Counts:
    """Count events per frame, polarity and pixel.

    Args:
        events: at least one, in the order of time (:func:`trevsnn.data.events.recordings.read_recording`).
        frames: T.
        size: of a frame, H x W. An event at (x, y) is counted in column x W // width and row y H // height of the sensor, so
            none is lost or counted twice.
        sensor: width and height in pixels.
        by: "count" gives every frame as many events, "time" as many microseconds.
        letterbox: keep the sensor's aspect: it fills the middle of a frame, and what is left on two sides stays 0. Without,
            the two directions are scaled each by its own factor.

    Returns:
        (T, 2, H, W), polarities darker and brighter, of the smallest unsigned type that holds every count.

    Raises:
        RunError: an event lies outside the sensor.
        ValueError: there are none; one has a polarity other than 0 and 1, or is before the one in front of it.
    """
    if not len(events):
        raise ValueError("there are no events: frames of none are zeros")
    if (stray := first_stray(events, sensor)) is not None:
        raise RunError(
            f"The recording does not fit: {stray}. Give the sensor's width and height, or leave such events out."
        )
    return _count(events, frames, size, sensor, by, letterbox=letterbox)


def _count(events: Events, frames: int, size: Size, sensor: tuple[int, int], by: BinBy, *, letterbox: bool) -> Counts:
    """As :func:`bin_events`, of events of which none lies outside the sensor."""
    if events["p"].max() > 1:
        raise ValueError(f"it has an event of polarity {events['p'].max()}; known are 0 (darker) and 1 (brighter)")
    if np.any(events["t"][1:] < events["t"][:-1]):
        raise ValueError("its events are not in the order of time: sort them, stably")
    (width, height), (rows, columns) = sensor, height_and_width(size)
    shown_rows, shown_columns = _shown(sensor, (rows, columns)) if letterbox else (rows, columns)
    y = events["y"].astype(np.int64) * shown_rows // height + (rows - shown_rows) // 2
    x = events["x"].astype(np.int64) * shown_columns // width + (columns - shown_columns) // 2
    place = ((frame_numbers(events, frames, by) * 2 + events["p"]) * rows + y) * columns + x
    counts = np.bincount(place, minlength=frames * 2 * rows * columns)
    return counts.astype(np.min_scalar_type(counts.max())).reshape(frames, 2, rows, columns)


def _shown(sensor: tuple[int, int], size_HW: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a frame that the whole sensor fills, with its own aspect."""
    (width, height), (rows, columns) = sensor, size_HW
    if rows * width <= columns * height:
        return rows, max(1, width * rows // height)
    return max(1, height * columns // width), columns


def is_within(events: Events, sensor: tuple[int, int]) -> NDArray[np.bool_]:
    """Of each event, whether it lies on the sensor, of (width, height) pixels."""
    x, y = events["x"], events["y"]
    return (x >= 0) & (y >= 0) & (x < sensor[0]) & (y < sensor[1])


def first_stray(events: Events, sensor: tuple[int, int]) -> str | None:
    """What to say of the first event outside the sensor; None where there is none."""
    within = is_within(events, sensor)
    if within.all():
        return None
    number = int(within.argmin())
    x, y, t, _ = events[number].item()
    return (
        f"its event {number + 1} of {len(events)}, at {t} us, lies at ({x}, {y}), outside a sensor of {sensor[0]} x {sensor[1]} "
        "pixels"
    )


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
    span = int(since[-1]) + 1
    # by where frames begin, as times of years have no product with T in 64 bits
    return np.searchsorted([-(-k * span // frames) for k in range(1, frames)], since, side="right")


class Binned(NamedTuple):
    """Frames of a recording (T, 2, H, W), and what was dropped: the events outside the sensor, and a sentence on the first."""

    counts_TCHW: Counts
    dropped: int
    first: str | None


@dataclass(frozen=True)
class Binning:
    """How a run makes frames of events. Its fields are all that frames depend on, beside the events.

    Attributes:
        frames, size, sensor, by, letterbox: as of :func:`bin_events`.
        skip: drop events outside the sensor and count them, instead of refusing the recording.
    """

    frames: int
    size: tuple[int, int]
    sensor: tuple[int, int]
    by: BinBy
    letterbox: bool
    skip: bool

    @classmethod
    def of(cls, config: DataConfig, timesteps: int) -> Self:
        """As a run's data.* and T say.

        Raises:
            RunError: frames are to be larger than the sensor.
        """
        check_size(config.image_size, config.sensor_WH)
        skip = config.on_unreadable == "skip"
        return cls(timesteps, config.size_HW, config.sensor_WH, config.bin_by, config.letterbox, skip)

    def __call__(self, events: Events) -> Binned:
        """The frames of a recording, or of an excerpt of one.

        Raises:
            ValueError: an event lies outside the sensor, with ``skip`` every event.
        """
        first = first_stray(events, self.sensor)
        if first is not None and not self.skip:
            raise ValueError(first)
        within = events if first is None else events[is_within(events, self.sensor)]
        if not len(within):
            raise ValueError(
                f"all of its {len(events)} events lie outside a sensor of {self.sensor[0]} x {self.sensor[1]} pixels"
            )
        counts = _count(within, self.frames, self.size, self.sensor, self.by, letterbox=self.letterbox)
        return Binned(counts, len(events) - len(within), first)
