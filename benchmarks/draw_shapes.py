"""Boxes, circles, arrows and texts, in inches, of which draw_architecture.py makes its pictures."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from trevsnn.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION

Point = tuple[float, float]

#: The light colours that boxes are filled with, by the colour of their line.
PALE = {BLUE: "#DCEBF5", ORANGE: "#FCF0D9", GREEN: "#DDF3EC", VERMILION: "#FBE5D9", PURPLE: "#F8E8F1", GREY: "#F2F2F2"}


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A white figure of so many inches, whose unit is an inch."""
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def box(axes: Axes, centre: Point, text: str, colour: str, size: Point = (1.0, 0.5), fontsize: float = 12) -> None:
    """A rounded box with a text."""
    (x, y), (w, h) = centre, size
    axes.add_patch(
        FancyBboxPatch(
            (x - w / 2 + 0.06, y - h / 2 + 0.06), w - 0.12, h - 0.12, boxstyle="round,pad=0.06",
            facecolor=PALE[colour], edgecolor=colour, linewidth=1.4, zorder=3,
        )
    )  # fmt: skip
    write(axes, centre, text, fontsize=fontsize)


def state(axes: Axes, centre: Point, text: str, face: str = "white", edge: str = BLACK, radius: float = 0.33) -> None:
    """A circle: a level's state after a timestep."""
    axes.add_patch(Circle(centre, radius, facecolor=face, edgecolor=edge, linewidth=1.4, zorder=3))
    write(axes, centre, text, fontsize=11)


def write(axes: Axes, at: Point, text: str, **style: Any) -> None:
    """A text, around a place unless ``style`` says otherwise."""
    axes.text(*at, text, **{"ha": "center", "va": "center", "fontsize": 12, "zorder": 5, **style})


def arrow(axes: Axes, start: Point, end: Point, colour: str, bend: float = 0, width: float = 1.6) -> None:
    """An arrow from border to border."""
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=13, color=colour, linewidth=width,
            connectionstyle=f"arc3,rad={bend}", shrinkA=0, shrinkB=0, zorder=2,
        )
    )  # fmt: skip


def key(axes: Axes, at: Point, colour: str, text: str, width: float = 1.6) -> None:
    """An arrow of the legend."""
    arrow(axes, at, (at[0] + 0.5, at[1]), colour, width=width)
    write(axes, (at[0] + 0.62, at[1]), text, ha="left", fontsize=11.5)
