"""An event, as all of trevsnn has it, and what is refused in a recording."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The dtype of an event: x and y, int32, in pixels, columns and rows from the upper left; t, int64, in microseconds; p, uint8,
#: 0 (darker) or 1 (brighter). Sensors have fewer than 2^15 pixels a side; a place far beyond one
#: is kept as it is, so that it can be named, or dropped.
EVENT = np.dtype([("x", np.int32), ("y", np.int32), ("t", np.int64), ("p", np.uint8)])
#: A recording: an array (N,) of :data:`EVENT`, in the order of time.
Events = NDArray[np.void]
#: Width and height in pixels.
Sensor = tuple[int, int]
#: A recording of more is refused: of 17 bytes each these take 4.6 GB.
MOST_EVENTS = 2**28


class RefusedError(ValueError):
    """A file that may be whole, but is not read as it is. The message says what to do."""


def make_events(x: Any, y: Any, t: Any, p: Any) -> Events:
    """Arrays of one length, whose values fit, as events."""
    events = np.empty(len(x), EVENT)
    events["x"], events["y"], events["t"], events["p"] = x, y, t, p
    return events
