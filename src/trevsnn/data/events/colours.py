"""Events as pictures: counts per pixel in two colours that colour-blind people tell apart, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.events.frames import bin_events
from trevsnn.data.events.look import Sensor, inside
from trevsnn.data.events.recordings import Events

#: Blue and vermilion of Okabe and Ito's palette (jfly.uni-koeln.de/color), RGB of 0..255.
DARKER, BRIGHTER, BACKGROUND = (0, 114, 178), (213, 94, 0), (255, 255, 255)
MIXTURES, STRENGTHS = 9, 20  # of the two colours, and of a mixture on the background
FAINTEST = 0.45  # strength of a single event among many
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


def coloured(counts_T2HW: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Entries (T, H, W) of :func:`palette` for the counts of darker and brighter events.

    The colour is the mixture of the two in the share of a pixel's events. It is the stronger the more events there are, on
    one scale for all frames: full where there are as many as in the busiest fiftieth of the pixels that have some.
    """
    total_THW = counts_T2HW.sum(1, dtype=np.int64)
    some = total_THW[total_THW > 0]
    most = max(int(np.quantile(some, 0.98)), 2) if len(some) else 2
    mixture = np.rint((MIXTURES - 1) * counts_T2HW[:, 1] / np.maximum(total_THW, 1)).astype(np.int64)
    strength = np.rint((STRENGTHS - 1) * np.sqrt(np.minimum((total_THW - 1).clip(0) / (most - 1), 1))).astype(np.int64)
    return np.where(total_THW > 0, 1 + mixture * STRENGTHS + strength, 0).astype(np.uint8)


def count_spans(
    events: Events, spans: Sequence[Span], size_HW: tuple[int, int], sensor: Sensor
) -> NDArray[np.uint8]:
    """Counts (T, 2, H, W) of the events of each span of time, as :func:`trevsnn.data.events.frames.bin_events` counts them.

    Args:
        events: in the order of time; those outside the sensor are not counted.
        spans: first microsecond and the one behind the last, from the first event.
        size_HW: of a frame, no larger than the sensor.
        sensor: width and height in pixels.
    """
    places = np.searchsorted(events["t"], np.array(spans) + events["t"][0]).tolist()
    counts_T2HW = np.zeros((len(spans), 2, *size_HW), np.uint8)
    for number, (first, last) in enumerate(places):
        own = events[first:last]
        own = own[inside(own, sensor)]
        if len(own):
            counts_T2HW[number] = bin_events(own, 1, size_HW, sensor, "time")[0]
    return counts_T2HW


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


def enlarged(pixels_THW: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Every pixel as a square of ``factor`` x ``factor``."""
    return pixels_THW.repeat(factor, axis=-2).repeat(factor, axis=-1)
