"""Recordings as an animated GIF at their true speed, or slower."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from PIL import Image, ImageDraw

from trevsnn.data.events.colours import TEXT, TRACK, Span, drawn, fitting, palette
from trevsnn.data.events.look import Sensor
from trevsnn.data.events.recordings import Events
from trevsnn.terminal import visible

MOST_FRAMES = 300
FASTEST_MS = 20  # browsers show frames of less for 100 ms
MOST_COLUMNS = 6  # of recordings side by side
FOOT, LABEL, GAP = 22, 16, 6  # pixels below all, for the time; below a recording, for its name; and between recordings


def animation_spans(duration_us: int, window_us: int) -> list[Span]:
    """The times that the frames of an animation show: windows one after the other from the first event, 300 at most."""
    count = min(duration_us // window_us + 1, MOST_FRAMES)
    return [(k * window_us, (k + 1) * window_us) for k in range(count)]


def animation(recordings: Sequence[tuple[str, Events, Sensor]], spans: Sequence[Span], slow: float) -> bytes:
    """A GIF that repeats for ever: a frame for each span of time, shown for its time, with the time and a bar below.

    A GIF counts in hundredths of a second. Frames last the nearest of these to the whole time so far, so that the animation as
    a whole keeps the speed.

    Args:
        recordings: one, or up to 36 to be shown side by side from their first events on: the name printed below it (""
            for none), the events in the order of time, width and height of the sensor in pixels.
        spans: of :func:`animation_spans`.
        slow: by how much slower than it was.
    """
    count = len(recordings)
    room = (272, 640) if count == 1 else (136, 160)
    sides = [
        (factor * rows, factor * columns) for (rows, columns), factor in (fitting(r[2], *room) for r in recordings)
    ]
    columns = min(range(ceil(sqrt(count)), MOST_COLUMNS + 1), key=lambda columns: -count % columns)
    label = LABEL if any(name for name, _, _ in recordings) else 0
    across = max(*(side[1] for side in sides), 96) + GAP
    down = max(side[0] for side in sides) + label + GAP
    width, height = columns * across - GAP, -(-count // columns) * down - GAP
    corners = [(number // columns * down, number % columns * across) for number in range(count)]
    shown = zip(*(drawn(events, spans, sensor, *room) for _, events, sensor in recordings), strict=True)
    frames, colours = [], palette().tobytes()
    for (first, last), tiles_HW in zip(spans, shown, strict=True):
        frame_HW = np.zeros((height + FOOT, width), np.uint8)
        for tile_HW, (top, left), (rows, lines) in zip(tiles_HW, corners, sides, strict=True):
            frame_HW[top : top + rows, left : left + lines] = tile_HW
        frame_HW[height : height + 3] = TRACK
        frame_HW[height : height + 3, width * first // spans[-1][1] : width * last // spans[-1][1]] = TEXT
        frame = Image.fromarray(frame_HW)
        frame.putpalette(colours)
        pen = ImageDraw.Draw(frame)
        pen.text((4, height + 6), f"{first / 1e6:.3f} s", fill=TEXT)
        for (name, _, _), (top, left), (rows, lines) in zip(recordings, corners, sides, strict=True):
            pen.text((left + 2, top + rows + 2), _short(name, across // 6), fill=TEXT)
            if count > 1:
                pen.rectangle((left, top, left + lines - 1, top + rows - 1), outline=TRACK)
        frames.append(frame)
    ends = [round(slow * last / 1e4) for _, last in spans]
    durations = [10 * (end - start) for start, end in zip([0, *ends], ends, strict=False)]
    content = io.BytesIO()
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)
    return content.getvalue()


def _short(name: str, most: int) -> str:
    """A name as Pillow's own font has letters for, cut off where it is longer than there is room for."""
    plain = visible(name).encode("ascii", "backslashreplace").decode()
    return plain if len(plain) <= most else f"{plain[: most - 2]}.."
