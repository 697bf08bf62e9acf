"""Events as pictures: counts per pixel in two colours that colour-blind people tell apart, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.events.frames import bin_events, is_within
from trevsnn.data.events.look import Sensor
from trevsnn.data.events.recordings import Events

#: Blue and vermilion of Okabe and Ito's palette (jfly.uni-koeln.de/color), RGB of 0..255.
DARKER, BRIGHTER, BACKGROUND = (0, 114, 178), (213, 94, 0), (255, 255, 255)
MIXTURES, STRENGTHS = 9, 20  # of the two colours, and of a mixture on the background
FAINTEST = 0.45  # strength of a single event among many
MOST_COUNT = 9999  # events of a pixel, above which they look alike
TEXT, TRACK = 254, 255  # the palette's entries for what is written on a picture

Span = tuple[int, int]


def palette() -> NDArray[np.uint8]:
    """The colours (256, 3) of :func:`coloured`: 0 the background, the last two black and light grey."""
    colours = np.full((256, 3), BACKGROUND, np.float64)
    for mixture in range(MIXTURES):
        share = mixture / (MIXTURES - 1)
        colour = share * np.array(BRIGHTER) + (1 - share) * np.array(DARKER)
        for strength in range(STRENGTHS):
            opaque = FAINTEST + (1 - FAINTEST) * strength / (STRENGTHS - 1)
            colours[1 + mixture * STRENGTHS + strength] = opaque * colour + (1 - opaque) * np.array(BACKGROUND)
    colours[[TEXT, TRACK]] = [[40], [225]]
    return colours.round().astype(np.uint8)


def drawn(events: Events, spans: Sequence[Span], sensor: Sensor, small: int, large: int) -> Iterator[NDArray[np.uint8]]:
    """A frame (H, W) for each span of time, of entries of :func:`palette`.

    A pixel's colour is the mixture of the two in the share of its events. It is the stronger the more events there are, on one
    scale for all frames: full where there are as many as in the busiest fiftieth of the pixels that have some.

    Args:
        events: in the order of time; those outside the sensor are not drawn.
        spans: first microsecond and the one behind the last, from the first event.
        sensor: width and height in pixels.
        small, large: as :func:`fitting` takes them.
    """
    size_HW, factor = fitting(sensor, small, large)
    places = np.searchsorted(events["t"], np.array(spans) + events["t"][0]).tolist()
    # Counted twice: all frames at once may not fit into memory.
    histogram = np.zeros(MOST_COUNT + 1, np.int64)
    for first, last in places:
        total_HW = count(events[first:last], size_HW, sensor).sum(0)
        histogram += np.bincount(np.minimum(total_HW, MOST_COUNT).ravel(), minlength=len(histogram))
    histogram[0] = 0
    most = int(np.searchsorted(histogram.cumsum(), 0.98 * histogram.sum()))
    for first, last in places:
        frame_HW = coloured(count(events[first:last], size_HW, sensor), max(most, 2))
        yield frame_HW.repeat(factor, axis=0).repeat(factor, axis=1)


def count(events: Events, size_HW: tuple[int, int], sensor: Sensor) -> NDArray[np.int64]:
    """Darker and brighter events (2, H, W) of each pixel of a frame, but for those outside the sensor, as
    :func:`trevsnn.data.events.frames.bin_events` counts them."""
    events = events[is_within(events, sensor)]
    if not len(events):
        return np.zeros((2, *size_HW), np.int64)
    return bin_events(events, 1, size_HW, sensor, "time")[0].astype(np.int64)


def coloured(counts_2HW: NDArray[np.int64], most: int) -> NDArray[np.uint8]:
    """Entries (H, W) of :func:`palette` for counts of events; in full strength where there are ``most``, 2 at least, or more."""
    total_HW = counts_2HW.sum(0)
    mixture = np.rint((MIXTURES - 1) * counts_2HW[1] / np.maximum(total_HW, 1))
    strength = np.rint((STRENGTHS - 1) * np.sqrt(((total_HW - 1) / (most - 1)).clip(0, 1)))
    return np.where(total_HW > 0, 1 + mixture * STRENGTHS + strength, 0).astype(np.uint8)


def fitting(sensor: Sensor, small: int, large: int) -> tuple[tuple[int, int], int]:
    """Height and width of a frame of a sensor, and the whole factor by which its pixels are enlarged.

    A longer side up to ``small`` pixels is enlarged by the largest factor that keeps it within these; one above ``large``
    is counted in pixels 2, 3, ... times as large.
    """
    width, height = sensor
    if max(sensor) > large:
        shrink = -(-max(sensor) // large)
        return (max(height // shrink, 1), max(width // shrink, 1)), 1
    return (height, width), max(small // max(sensor), 1)
