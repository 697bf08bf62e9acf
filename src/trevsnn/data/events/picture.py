"""A recording as a sheet of frames over its rate, and a data set as a sheet of a recording of each class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from trevsnn.data.events.colours import BRIGHTER, DARKER, Span, drawn, palette
from trevsnn.data.events.look import Sensor, rate_windows
from trevsnn.data.events.recordings import Events
from trevsnn.data.events.units import counted, rate_text, time_text, time_unit
from trevsnn.files import figure_bytes
from trevsnn.terminal import visible

DPI = 100
MARGIN, GAP, CAPTION, HEAD, CHART = 78, 12, 22, 58, 190  # pixels
WIDEST = 1480  # of a row of frames
CHART_WINDOWS = 150


def sheet_spans(duration_us: int, frames: int, longest_us: int) -> list[Span]:
    """The times that the frames of a sheet show: of as many equal times the whole, or no more than the longest from the
    beginning of each. There are fewer where the recording has fewer microseconds."""
    frames = min(frames, duration_us + 1)
    edges = [(duration_us + 1) * k // frames for k in range(frames + 1)]
    return [(first, min(last, first + longest_us)) for first, last in pairwise(edges)]


def sheet(events: Events, figures: dict[str, Any], title: str, spans: Sequence[Span]) -> bytes:
    """A picture (PNG) of frames, the time below each, and of the events a second over time.

    Args:
        events: of a recording, in the order of time.
        figures: of :func:`trevsnn.data.events.look.look_at_events`.
        title: printed above, letter by letter.
        spans: of the frames, of :func:`sheet_spans`.
    """
    frames_THW3 = _frames(events, spans, tuple(figures["sensor"]), 272, 360)
    height, width = frames_THW3.shape[1:3]
    rows = -(-len(spans) // max(1, WIDEST // (width + GAP)))
    columns = -(-len(spans) // rows)
    across = max(columns * (width + GAP) - GAP, 560)
    down = HEAD + rows * (height + CAPTION + GAP)
    canvas = _Canvas(across + MARGIN + 20, down + CHART)
    canvas.title(title, _summary(figures))
    unit = time_unit(figures["duration_us"])
    for number, (frame_HW3, span) in enumerate(zip(frames_THW3, spans, strict=True)):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * (width + GAP), HEAD + row * (height + CAPTION + GAP)
        canvas.picture(frame_HW3, left, top)
        canvas.text(left + width / 2, top + height + 4, f"{number + 1}:  {_times(span, unit)}", ha="center")
    _rates(canvas.axes(MARGIN, down + 12, across, CHART - 64), events, spans, unit)
    return canvas.png()


def set_sheet(rows: Sequence[tuple[str, Events, Sensor, Sequence[Span]]], title: str, note: str) -> bytes:
    """A picture (PNG) of a recording a row.

    Args:
        rows: for each its name, its events in the order of time, width and height of its sensor, and the spans of its frames.
        title, note: printed above, letter by letter.
    """
    names = [visible(name) if len(visible(name)) <= 20 else f"{visible(name)[:19]}…" for name, _, _, _ in rows]
    frames = [_frames(events, spans, sensor, 136, 160) for _, events, sensor, spans in rows]
    left, width = 40 + 8 * max(map(len, names)), max(frames_THW3.shape[2] for frames_THW3 in frames)
    across = max(max(map(len, frames)) * (width + GAP), 560)
    canvas = _Canvas(left + across + 20, HEAD + sum(f.shape[1] + CAPTION + GAP for f in frames) + 10)
    canvas.title(title, note, 20)
    top = HEAD
    for name, frames_THW3, (_, _, _, spans) in zip(names, frames, rows, strict=True):
        height = frames_THW3.shape[1]
        canvas.text(20, top + height / 2 - 7, name, fontsize=10)
        unit = time_unit(spans[-1][1])
        for column, (frame_HW3, span) in enumerate(zip(frames_THW3, spans, strict=True)):
            x = left + column * (width + GAP)
            canvas.picture(frame_HW3, x, top)
            canvas.text(x + frame_HW3.shape[1] / 2, top + height + 4, _times(span, unit), ha="center", fontsize=8)
        top += height + CAPTION + GAP
    return canvas.png()


def _frames(events: Events, spans: Sequence[Span], sensor: Sensor, small: int, large: int) -> NDArray[np.uint8]:
    """RGB frames (T, H, W, 3) of some times of a recording."""
    return palette()[np.stack(list(drawn(events, spans, sensor, small, large)))]


def _times(span: Span, unit: tuple[float, str]) -> str:
    first, last = (edge / unit[0] for edge in span)
    digits = 2 if unit[1] == "s" else 1 if last - first < 10 and unit[1] == "ms" else 0
    return f"{first:.{digits}f} to {last:.{digits}f} {unit[1]}"


def _summary(figures: dict[str, Any]) -> str:
    width, height = figures["sensor"]
    return (
        f"{width} x {height} pixels, {time_text(figures['duration_us'])}, {counted(figures['events'], 'event')}: "
        f"{figures['brighter']:,} brighter, {figures['darker']:,} darker"
    )


def _rates(axes: Axes, events: Events, spans: Sequence[Span], unit: tuple[float, str]) -> None:
    """Events a second over time, brighter ones upwards, darker ones downwards, with the times of the frames behind."""
    windows = rate_windows(events, CHART_WINDOWS)
    edges = np.array(windows["edges_us"])
    for name, colour, sign in (("brighter", BRIGHTER, 1), ("darker", DARKER, -1)):
        rate = sign * 1e6 * np.array(windows[name]) / np.diff(edges)
        rgb = tuple(part / 255 for part in colour)
        axes.stairs(rate, edges / unit[0], fill=True, color=rgb, label=name)
    for number, (first, last) in enumerate(spans):
        axes.axvspan(first / unit[0], last / unit[0], color="0.93" if number % 2 else "0.87", zorder=0, linewidth=0)
    axes.axhline(0, color="white", linewidth=0.8)
    axes.set(xlim=(0, edges[-1] / unit[0]), xlabel=unit[1], ylabel="events a second")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: rate_text(abs(value))))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2, frameon=False, fontsize=9, borderaxespad=0)


class _Canvas:
    """A figure whose parts are placed in pixels from the upper left corner, so that frames are shown pixel by pixel."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))

    def picture(self, pixels_HW3: NDArray[np.uint8], left: int, top: int) -> None:
        axes = self.axes(left, top, pixels_HW3.shape[1], pixels_HW3.shape[0])
        axes.imshow(pixels_HW3, interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color="0.75", linewidth=0.8)

    def text(self, x: float, top: float, text: str, **style: Any) -> None:
        style = {"fontsize": 9, "color": "0.25", **style}
        self.figure.text(x / self.width, 1 - top / self.height, visible(text), va="top", parse_math=False, **style)

    def title(self, title: str, note: str, left: int = MARGIN) -> None:
        self.text(left, 10, title, fontsize=12, color="black", weight="bold")
        self.text(left, 33, note)

    def png(self) -> bytes:
        return figure_bytes(self.figure, dpi=DPI)
