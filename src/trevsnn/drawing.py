"""How the library's pictures look: colours that colour-blind people tell apart, plain axes, names at the ends of lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from trevsnn.terminal import visible

# Of Okabe and Ito, "Color Universal Design" (2008); its yellow is too pale for a line on white.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
BLACK, GREY = "#000000", "#6E6E6E"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY)  # the last two without colour

TEXT, TITLE = 12, 13  # points
LONGEST = 42  # characters of a name


def chart(
    width: float, height: float, names: Sequence[str] = (), *, panels: int = 1, between: float = 0.9
) -> tuple[Figure, list[Axes]]:
    """A figure with axes beside each other. Their places are fixed, which takes half of the time that it takes to find them.

    Args:
        width, height: inches.
        names: for which there is room right of the last axes.
        panels: how many axes.
        between: inches from one to the next.
    """
    left, right, bottom, top = 0.85, 0.25, 0.65, 0.5
    right += 0.25 + 0.53 * TEXT / 72 * max(len(short(name)) for name in names) if names else 0
    figure = Figure(figsize=(width, height))
    each = (width - left - right - (panels - 1) * between) / panels
    places = [(left + n * (each + between), bottom, each, height - bottom - top) for n in range(panels)]
    return figure, [
        figure.add_axes((x / width, y / height, w / width, h / height))  # of the figure
        for x, y, w, h in places
    ]


def plain(axes: Axes, title: str, xlabel: str, ylabel: str = "") -> None:
    """Give axes their texts, letter by letter, and no more ink than they need."""
    axes.set_title(visible(title), fontsize=TITLE, loc="left", parse_math=False)
    axes.set_xlabel(xlabel, fontsize=TEXT)
    axes.set_ylabel(ylabel, fontsize=TEXT)
    axes.tick_params(labelsize=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def short(name: str, longest: int = LONGEST) -> str:
    """A name as it is drawn: letter by letter, and its beginning alone where it is long."""
    name = visible(name)
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def name_lines(axes: Axes, lines: Sequence[Line2D], names: Sequence[str]) -> None:
    """Write each line's name right of its last point, in its colour, no two names on each other.

    Args:
        axes: of :func:`chart`, whose limits do not change any more.
        lines: of which those without a finite point are passed over.
        names: of them.
    """
    axes.get_ylim()  # which finds the limits: Matplotlib puts that off until it draws
    named = [
        (line, name, end) for line, name in zip(lines, names, strict=True) if (end := _last_point(line)) is not None
    ]
    if not named:
        return
    figure = axes.figure.get_figure(root=True)
    assert figure is not None
    inches = axes.get_position().height * figure.get_figheight()
    heights = axes.transAxes.inverted().transform(axes.transData.transform([end for *_, end in named]))[:, 1]
    for (line, name, end), height in zip(named, apart(heights, 1.15 * TEXT / 72 / inches).tolist(), strict=True):
        axes.annotate(
            short(name), end, (1.05, height), textcoords="axes fraction", va="center", color=line.get_color(), fontsize=TEXT,
            parse_math=False, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.8, "shrinkA": 2, "shrinkB": 3, "relpos": (0, 0.5)},
        )  # fmt: skip


def apart(places_N: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """The numbers in 0..1, as far as there is room, that are nearest to ``places_N``, by squares, of the same order and
    ``distance`` from each other at least.

    Less n times the distance they have to rise alone, and the nearest rising numbers are, of the means of stretches that
    begin before or at n, the largest of the smallest that end at or after it (isotonic regression).
    """
    order, steps = np.argsort(places_N, kind="stable"), distance * np.arange(len(places_N))
    sums = np.concatenate(([0.0], np.cumsum(places_N[order] - steps)))
    risen = [
        max(min((sums[k] - sums[j]) / (k - j) for k in range(n + 1, len(sums))) for j in range(n + 1))
        for n in range(len(places_N))
    ]
    result = np.empty(len(places_N))
    result[order] = np.clip(risen, 0, max(1 - steps[-1], 0)) + steps
    return result


def _last_point(line: Line2D) -> tuple[float, float] | None:
    points_N2 = np.asarray(line.get_xydata(), dtype=np.float64)
    finite_N2 = points_N2[np.isfinite(points_N2).all(1)]
    return (float(finite_N2[-1, 0]), float(finite_N2[-1, 1])) if len(finite_N2) else None
