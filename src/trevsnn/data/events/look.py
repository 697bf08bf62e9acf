"""What a recording holds: counts, rates, order, strays and hot pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.convention import Convention
from trevsnn.data.events.frames import is_within
from trevsnn.data.events.recordings import UNSTATED, Events, Recording, open_recording
from trevsnn.errors import UnreadableError

#: What is in files of an ending.
FORMATS = {
    ".aedat": "AEDAT 2 or 3", ".aedat4": "AEDAT 4", ".bin": "40-bit words (N-MNIST)", ".bs3": "56-bit words (SLAYER)",
    ".csv": "CSV", ".dat": "Prophesee DAT 2", ".h5": "HDF5", ".hdf5": "HDF5", ".npz": "arrays of NumPy", ".raw": "Prophesee EVT 2 or 3",
}  # fmt: skip
WINDOWS = 60  # of equal time, for the rate over time
PEAK_US = 10_000  # the busiest time looked for is so long
HOT_TIMES, HOT_LEAST, HOT_LISTED = 10, 20, 5

Sensor = tuple[int, int]


def open_to_look(path: Path, convention: Convention = UNSTATED) -> Recording:
    """A recording whose figures can be told.

    Raises:
        UnreadableError, RunError, UsageError: as :func:`trevsnn.data.events.recordings.open_recording`.
    """
    if path.is_dir():
        raise UnreadableError(f"{path} is no file: give a recording, or a folder of recordings.")
    return open_recording(path, convention)


def duration_us(events: Events) -> int:
    """From the first event to the last, in microseconds."""
    return int(events["t"][-1]) - int(events["t"][0])


def look_at_file(
    path: Path, sensor: Sensor | None = None, convention: Convention = UNSTATED
) -> tuple[Events, dict[str, Any]]:
    """A recording's events and what :func:`look_at_events` finds in them.

    Args:
        path: the file.
        sensor: width and height in pixels, over what the file states.
        convention: of plain tables.

    Returns:
        The events in the order of time, and the figures, with ``file`` and ``format`` before them.

    Raises:
        UnreadableError, RunError, UsageError: as :func:`open_to_look`.
    """
    recording = open_to_look(path, convention)
    figures = look_at_events(recording.events, sensor or recording.sensor)
    source = "option" if sensor else "file" if recording.sensor else "events"
    about = {"file": str(path), "format": FORMATS[path.suffix.lower()]}
    return recording.events, {**about, **figures, "sensor_from": source, "disordered": recording.disordered}


def look_at_events(events: Events, sensor: Sensor | None) -> dict[str, Any]:
    """Figures of a recording.

    Args:
        events: at least one, in the order of time.
        sensor: width and height in pixels; None for the smallest that holds all events.

    Returns:
        ``sensor``, [width, height]; ``events``, their number, of them ``darker`` and ``brighter``; ``start_us``, the time of
        the first in microseconds of the file's clock, and ``duration_us`` to the last; ``mean_rate`` and ``peak_rate``, events
        a second, the latter of the busiest ``peak_window_us`` microseconds (10 ms, or a tenth of a recording below 100 ms), both
        None where all events are at one time; ``windows`` of :func:`rate_windows`; ``equal_times``, events at the same
        microsecond as the one before; ``outside``, the number of ``events`` outside the sensor and the ``first`` of them
        (``number`` in the order of time from 1, ``x``, ``y``, ``after_us``), or None; ``hot``, of :func:`hot_pixels`;
        ``longest_gap``, the longest time without an event, ``us``, and when it begins, ``after_us`` from the first event.
    """
    t, duration = events["t"] - events["t"][0], duration_us(events)
    brighter = int(np.count_nonzero(events["p"]))
    sensor = sensor or smallest_sensor(events)
    inside_N = is_within(events, sensor)
    gaps = np.diff(t)
    gap = int(gaps.argmax()) if len(gaps) else 0
    window = max(min(PEAK_US, duration // 10), 1)
    busiest = int((np.searchsorted(t, t + window) - np.arange(len(t))).max())
    return {
        "sensor": list(sensor), "events": len(events), "darker": len(events) - brighter, "brighter": brighter,
        "start_us": int(events["t"][0]), "duration_us": duration,
        "mean_rate": 1e6 * len(events) / duration if duration else None,
        "peak_rate": 1e6 * busiest / window if duration else None, "peak_window_us": window,
        "windows": rate_windows(events, WINDOWS), "equal_times": int(np.count_nonzero(gaps == 0)),
        "outside": _outside(events, inside_N), "hot": hot_pixels(events if inside_N.all() else events[inside_N]),
        "longest_gap": {"us": int(gaps[gap]) if len(gaps) else 0, "after_us": int(t[gap])},
    }  # fmt: skip


def smallest_sensor(events: Events) -> Sensor:
    """Width and height of the smallest sensor that holds all events whose place is not negative."""
    return max(int(events["x"].max()) + 1, 1), max(int(events["y"].max()) + 1, 1)


def _outside(events: Events, inside_N: NDArray[np.bool_]) -> dict[str, Any]:
    count, first = int(np.count_nonzero(~inside_N)), int(inside_N.argmin())
    if not count:
        return {"events": 0, "first": None}
    x, y, t, _ = events[first].tolist()
    return {"events": count, "first": {"number": first + 1, "x": x, "y": y, "after_us": t - int(events["t"][0])}}


def rate_windows(events: Events, count: int) -> dict[str, list[int]]:
    """Events in windows of equal time, but for whole microseconds.

    Args:
        events: in the order of time.
        count: of windows; there are fewer where the recording has fewer microseconds.

    Returns:
        ``edges_us``, one more than windows, in microseconds from the first event; ``darker`` and ``brighter``, the number of
        events in each window. Events a second are these over the windows' lengths.
    """
    span = duration_us(events) + 1
    count = min(count, span)
    edges = [span * k // count for k in range(count + 1)]
    places = np.searchsorted(events["t"] - events["t"][0], edges)
    brighter = np.diff(np.concatenate([[0], np.cumsum(events["p"] != 0)])[places])
    return {
        "edges_us": edges,
        "darker": (np.diff(places) - brighter).tolist(),
        "brighter": brighter.tolist(),
    }


def hot_pixels(events: Events) -> dict[str, Any]:
    """Pixels that send events by themselves: at least 20, and more than 10 times the mean of their neighbours.

    The neighbours are the 8 around it, those beyond the events' places being without events, and the busiest of them is left
    out: two hot pixels side by side do not hide each other. An edge that moves over a pixel moves over several of its
    neighbours, so busy places of the scene are not hot.

    Returns:
        ``count``; ``events``, of all of them; ``pixels``, the five busiest, each with ``x``, ``y``, ``events`` and the
        ``share`` of all events.
    """
    # By place and not as a map: a stray event must not make the map large. Rows are so far apart that no neighbour of a pixel at
    # the edge is in another row.
    row = int(events["x"].max(initial=0)) + 2
    places, counts = np.unique(events["y"].astype(np.int64) * row + events["x"], return_counts=True)
    around_8N = np.zeros((8, len(places)), np.int64)
    steps = [dy * row + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    for around_N, step in zip(around_8N, steps, strict=True):
        at = np.searchsorted(places, places + step)
        there = places[np.minimum(at, len(places) - 1)] == places + step
        around_N[there] = counts[at[there]]
    others = around_8N.sum(0) - around_8N.max(0)
    hot = np.flatnonzero((counts >= HOT_LEAST) & (7 * counts > HOT_TIMES * others))
    hot = hot[np.argsort(-counts[hot], kind="stable")]
    return {
        "count": len(hot), "events": int(counts[hot].sum()),
        "pixels": [
            {"x": int(places[i]) % row, "y": int(places[i]) // row, "events": int(counts[i]), "share": int(counts[i]) / len(events)}
            for i in hot[:HOT_LISTED].tolist()
        ],
    }  # fmt: skip
