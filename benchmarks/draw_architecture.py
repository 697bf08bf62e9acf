"""The drawn pictures of the architecture: the grid of levels and timesteps, what each backward mode keeps, the path of a gradient.

    python benchmarks/draw_architecture.py

It writes docs/images/architecture.svg, backward-modes.svg and gradient-path.svg. Letters are outlines, so that the pictures
look the same in every browser; the same Matplotlib writes the same bytes. Equations: docs/learn/how-it-works.md.
"""

from __future__ import annotations

import io
import pathlib
import re
from collections.abc import Callable

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.path import Path

from draw_shapes import PALE, Point, arrow, box, canvas, key, state, write
from trevsnn.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION

IMAGES = pathlib.Path(__file__).parents[1] / "docs" / "images"


def architecture() -> Figure:
    """Levels and timesteps as a grid, and what is inside one F."""
    figure, axes = canvas(12, 10.6)
    columns, rows = tuple(1.95 + 2.6 * t for t in range(4)), (4.95, 6.45, 7.95)  # of F; its state stands right of it
    beside, bus = 1.1, 4.0
    write(axes, (0.3, 10.3), "A network of L = 3 levels and T = 4 timesteps", ha="left", fontsize=15)

    box(axes, (columns[0], 3.45), "picture", GREY, (1.3, 0.46))
    box(axes, (columns[1], 3.45), "encoder", GREEN, (1.3, 0.46))
    arrow(axes, (columns[0] + 0.65, 3.45), (columns[1] - 0.65, 3.45), GREY)
    axes.plot([columns[0], columns[-1]], [bus, bus], color=GREEN, linewidth=1.6)
    axes.plot([columns[1], columns[1]], [3.68, bus], color=GREEN, linewidth=1.6)
    note = "once for all timesteps; event frames have one each, and the last head alone"
    write(axes, (columns[1] + 0.8, 3.45), note, ha="left")
    for t, x in enumerate(columns):
        write(axes, (x + beside, 9.85), f"t = {t}", fontsize=13, color=GREY)
        arrow(axes, (x, bus), (x, rows[0] - 0.25), GREEN)
        write(axes, (x + 0.12, 4.35), f"x[{t}]", ha="left")
        for level, y in enumerate(rows):
            here = (x + beside, y)
            box(axes, (x, y), f"F[{level},{t}]", BLUE)
            state(axes, here, f"c[{level},{t}]")
            arrow(axes, (x + 0.5, y), (x + beside - 0.33, y), BLACK)
            if level < 2:  # to F[l+1,t]
                arrow(axes, (here[0] - 0.14, y + 0.3), (x + 0.18, rows[level + 1] - 0.25), BLUE)
            if t < 3:  # to c[l,t+1] around F[l,t+1], and to F[l-1,t+1]
                arrow(axes, (here[0] + 0.2, y + 0.27), (here[0] + 2.38, y + 0.27), VERMILION, bend=-0.2)
                if level > 0:
                    arrow(axes, (here[0] + 0.22, y - 0.25), (columns[t + 1] - 0.4, rows[level - 1] + 0.25), PURPLE)
        arrow(axes, (x + beside, rows[2] + 0.33), (x + beside, 8.84), ORANGE)
        box(axes, (x + beside, 9.05), "head", ORANGE, (0.8, 0.42))
        write(axes, (x + beside, 9.45), "logits")
    for level, (y, size) in enumerate(zip(rows, ("H x W", "H/2 x W/2", "H/2 x W/2"), strict=True)):
        write(axes, (0.3, y + 0.14), f"level {level}", ha="left", fontsize=13, color=GREY)
        write(axes, (0.3, y - 0.14), size, ha="left", fontsize=11, color=GREY)
    links = (
        ("spikes from below", BLUE),
        ("spikes from above, a timestep ago", PURPLE),
        ("alpha[l,t] times the state", VERMILION),
    )
    for x, (text, colour) in zip((0.5, 3.6, 8.2), links, strict=True):
        key(axes, (x, 2.85), colour, text)
    _inside(axes)
    return figure


def _inside(axes: Axes) -> None:
    """The inset: F of one level and timestep."""
    axes.add_patch(
        FancyBboxPatch(
            (0.3, 0.2), 11.4, 2.15, boxstyle="round,pad=0.08", facecolor="white", edgecolor=BLUE, linewidth=1.4
        )
    )
    write(axes, (0.45, 2.15), "Inside one F[l,t]", ha="left", fontsize=13)
    for y, texts, colour in (
        (1.6, ("c[l-1,t]", "s", "conv", "BN"), BLUE),
        (0.75, ("c[l+1,t-1]", "s", "conv", "BN"), PURPLE),
    ):
        for x, text, width in zip((0.93, 1.87, 2.6, 3.4), texts, (1.1, 0.4, 0.7, 0.55), strict=True):
            box(axes, (x, y), text, GREY if text.startswith("c[") else colour, (width, 0.42), 11)
        arrow(axes, (3.68, y), (4.05, 1.18 + (0.14 if y > 1 else -0.14)), colour)
    for y, colour in ((1.6, BLUE), (0.75, PURPLE)):
        for start, end in ((1.48, 1.67), (2.07, 2.25), (2.95, 3.12)):
            arrow(axes, (start, y), (end, y), colour)
    state(axes, (4.2, 1.18), "+", radius=0.2)
    arrow(axes, (4.4, 1.18), (5.02, 1.18), BLACK)
    write(axes, (4.6, 1.34), "v", fontsize=12)
    chain = (("s", 0.4), ("DW1", 0.66), ("PW1", 0.66), ("s", 0.4), ("PW2", 0.66), ("DW2", 0.66), ("gamma", 0.8))
    left = 5.02
    for number, (text, width) in enumerate(chain):
        box(axes, (left + width / 2, 1.18), text, BLUE if text == "s" else GREEN, (width, 0.42), 11)
        if number < len(chain) - 1:
            arrow(axes, (left + width, 1.18), (left + width + 0.2, 1.18), BLACK)
        left += width + 0.2
    state(axes, (left + 0.22, 1.18), "+", radius=0.2)
    arrow(axes, (left - 0.2, 1.18), (left + 0.02, 1.18), BLACK)
    axes.plot([4.8, 4.8, left + 0.22], [1.18, 1.72, 1.72], color=BLACK, linewidth=1.6)
    arrow(axes, (left + 0.22, 1.72), (left + 0.22, 1.38), BLACK)
    arrow(axes, (left + 0.42, 1.18), (left + 0.95, 1.18), BLACK)
    write(axes, (left + 0.68, 1.34), "F", fontsize=12)
    write(
        axes,
        (7.9, 0.55),
        "a block; F has two, one after the other, the second without gamma (DW: depthwise, PW: 1 x 1)",
        fontsize=11,
        color=GREY,
    )
    write(axes, (1.87, 0.35), "s: 1 where v >= 0.5, else 0", fontsize=11, color=GREY)


#: In backward_modes: what is kept of a mode, and of which states in float where it is not all.
LAST, ANCHORED = 7, 1  # float32 and alpha = 0.5 allow six inversions in a row
MODES = (
    ("exact", "of each state 2 bits an element,\nthe last states in float, and an\nanchor in float now and then (at\nalpha = 0.5 every sixth timestep);\nF is computed again, bit for bit"),
    ("reversible", "the last states; earlier ones are\ninverted from later ones, and F is\ncomputed again; refused where\nrounding may flip a spike (float32:\nfrom T = 7 on at alpha = 0.5, so\nthat here alpha is 1)"),
    ("autograd", "all states, and all maps\ninside of every F"),
)  # fmt: skip


def backward_modes() -> Figure:
    """What each backward mode keeps of the forward pass, on one grid of 3 levels and 8 timesteps."""
    figure, axes = canvas(12, 8.9)
    write(axes, (0.3, 8.6), "What is kept of the forward pass for the backward pass", ha="left", fontsize=15)
    states: dict[str, list[Point]] = {"float": [(0.5, 0.35)], "code": [(4.15, 0.35)], "none": [(6.45, 0.35)]}
    steps: dict[bool, list[Point]] = {True: [(8.15, 0.35)], False: [(9.9, 0.35)]}
    for x, text in (
        (0.8, "float state, 32 bits an element"), (4.45, "its code, 2 bits"), (6.75, "not kept"), (8.43, "maps of F"),
        (10.18, "computed again"),
    ):  # fmt: skip
        write(axes, (x, 0.35), text, ha="left", fontsize=11.5)
    for (name, text), base in zip(MODES, (6.15, 3.6, 1.05), strict=True):
        write(axes, (0.3, base + 1.75), name, ha="left", fontsize=14, weight="bold")
        write(axes, (0.3, base + 1.45), text, ha="left", va="top", fontsize=11.5, linespacing=1.35)
        for level in range(3):
            y = base + 0.2 + 0.72 * level
            write(axes, (3.65, y), f"l = {level}", color=GREY, ha="right", fontsize=11)
            for t in range(LAST + 1):
                x = 4.0 + 0.98 * t
                floats = range(LAST + 1) if name == "autograd" else (ANCHORED, LAST) if name == "exact" else (LAST,)
                kept = "float" if t in floats else "code" if name == "exact" else "none"
                states[kept].append((x + 0.47, y))
                steps[name == "autograd"].append((x, y))
    for t in range(LAST + 1):
        write(axes, (4.24 + 0.98 * t, 8.28), f"t = {t}", color=GREY)
    size = (0.4 * 72) ** 2  # of markers, in square points
    dashed = (0, (2, 2))
    axes.scatter(*zip(*states["float"], strict=True), s=size, color=BLUE, linewidths=1.3)
    axes.scatter(*zip(*states["code"], strict=True), s=size, facecolor="white", edgecolor=BLUE, linewidths=1.3)
    axes.scatter(*zip(*states["code"], strict=True), s=size, color=BLUE, marker=Path.wedge(0, 45), linewidths=0)
    axes.scatter(*zip(*states["none"], strict=True), s=size, facecolor="white", edgecolor=GREY, linestyle=dashed)
    axes.scatter(*zip(*steps[True], strict=True), s=size, color=VERMILION, marker="s")
    axes.scatter(
        *zip(*steps[False], strict=True), s=size, facecolor="white", edgecolor=GREY, linestyle=dashed, marker="s"
    )
    for kept, places in steps.items():
        for place in places:
            write(axes, place, "F", fontsize=10, color="white" if kept else GREY)
    return figure


AWAY = "#BBBBBB"  # the edge of what the path does not touch


def gradient_path() -> Figure:
    """What y[1,1] is the sum of and what it adds to, and the code that does so."""
    figure, axes = canvas(12, 9.9)
    write(
        axes,
        (0.3, 9.6),
        "The path of one gradient: y[l,t] = dL/dc[l,t], here of l = 1 and t = 1",
        ha="left",
        fontsize=15,
    )
    columns, rows = (2.0, 5.6, 9.2), (5.0, 6.6, 8.2)
    places = {(level, t): (columns[t] + 1.25, rows[level]) for level in range(3) for t in range(3)}
    near = {(1, 1), (2, 1), (0, 2), (1, 2), (0, 1), (2, 0), (1, 0)}
    for (level, t), (x, y) in places.items():
        mine, there = (level, t) == (1, 1), (level, t) in near
        state(
            axes,
            (x, y),
            f"y[{level},{t}]",
            face=PALE[ORANGE] if mine else "white",
            edge=ORANGE if mine else BLACK if there else AWAY,
            radius=0.36,
        )
        box(axes, (x - 1.25, y), f"F[{level},{t}]", BLUE if (level, t) in {(2, 1), (0, 2), (1, 1)} else GREY)
    for t, x in enumerate(columns):
        write(axes, (x + 0.62, 8.95), f"t = {t}", fontsize=13, color=GREY)
    for level, y in enumerate(rows):
        write(axes, (0.3, y), f"level {level}", ha="left", fontsize=13, color=GREY)
    centre = places[1, 1]
    # Into y[1,1]: from the level above at the same time, from the level below and its own level a timestep later.
    arrow(axes, (places[2, 1][0] - 0.36, rows[2]), (columns[1] + 0.5, rows[2]), BLUE)
    arrow(axes, (columns[1] + 0.2, rows[2] - 0.25), (centre[0] - 0.15, rows[1] + 0.34), BLUE)
    arrow(axes, (places[0, 2][0] - 0.36, rows[0]), (columns[2] + 0.5, rows[0]), PURPLE)
    arrow(axes, (columns[2] - 0.4, rows[0] + 0.25), (centre[0] + 0.25, rows[1] - 0.27), PURPLE)
    arrow(axes, (places[1, 2][0] - 0.2, rows[1] + 0.31), (centre[0] + 0.24, rows[1] + 0.29), VERMILION, bend=0.2)
    # Out of it, through F[1,1] and along alpha.
    arrow(axes, (centre[0] - 0.36, rows[1]), (columns[1] + 0.5, rows[1]), BLACK, width=2.4)
    arrow(axes, (columns[1] + 0.2, rows[1] - 0.25), (places[0, 1][0] - 0.15, rows[0] + 0.34), BLUE, width=2.4)
    arrow(axes, (columns[1] - 0.4, rows[1] + 0.25), (places[2, 0][0] + 0.25, rows[2] - 0.27), PURPLE, width=2.4)
    arrow(
        axes,
        (centre[0] - 0.2, rows[1] + 0.31),
        (places[1, 0][0] + 0.24, rows[1] + 0.29),
        VERMILION,
        width=2.4,
        bend=0.2,
    )
    write(axes, (columns[1] - 0.62, rows[1] - 0.62), "dL/dtheta of F[1,1]", fontsize=11.5, ha="right")
    arrow(axes, (columns[1] - 0.2, rows[1] - 0.25), (columns[1] - 0.58, rows[1] - 0.56), BLACK, width=2.4)
    peak = (columns[1] - 0.48, rows[1] + 0.64)  # of the arrow along alpha
    write(axes, (peak[0], peak[1] + 0.4), "dL/dalpha[1,1]", fontsize=11.5)
    arrow(axes, peak, (peak[0], peak[1] + 0.28), BLACK, width=2.4)
    legend = (
        ("to what F saw below", BLUE),
        ("to what it saw above", PURPLE),
        ("times alpha, to the state before", VERMILION),
    )
    for x, (text, colour) in zip((0.5, 3.7, 7.0), legend, strict=True):
        key(axes, (x, 4.2), colour, text)
    key(axes, (0.5, 3.75), BLACK, "into F, to its parameters and alpha", width=2.4)
    write(axes, (4.85, 3.75), "thick: out of y[1,1], thin: into it", ha="left", fontsize=11.5)
    state(axes, (8.35, 3.75), "", edge=AWAY, radius=0.15)
    write(axes, (8.62, 3.75), "grey: neither in y[1,1] nor beyond it", ha="left", fontsize=11.5)
    write(axes, (0.3, 3.2), "Four hops of code, each with its equation in its docstring:", ha="left", fontsize=13)
    hops = (
        ("1  _Piece.backward", "reversible/pieces.py", "one (l, t) of the chain:\nto below, above, alpha\nand the state before"),
        ("2  LeanStep.second_pass", "network/lean/step.py", "y through F:\nBlock2, Block1,\nthe sum, the links"),
        ("3  LeanBlock.backward", "network/lean/block.py", "y through one block;\nLeanLink in link.py:\nthrough one link"),
        ("4  LeanConv.backward", "network/lean/conv.py", "one convolution;\nnormalise_backward\nin network/norm.py"),
    )  # fmt: skip
    for number, (name, file, text) in enumerate(hops):
        x = 1.6 + 2.93 * number
        box(axes, (x, 1.6), "", ORANGE, (2.6, 2.4))
        write(axes, (x, 2.5), name, fontsize=11.5, weight="bold")
        write(axes, (x, 2.15), file, fontsize=11, color=GREY)
        write(axes, (x, 1.25), text, fontsize=11.5, linespacing=1.4)
        if number < 3:
            arrow(axes, (x + 1.3, 1.6), (x + 1.63, 1.6), ORANGE, width=2.4)
    return figure


DRAWN: dict[str, Callable[[], Figure]] = {
    "architecture": architecture,
    "backward-modes": backward_modes,
    "gradient-path": gradient_path,
}


def svg(name: str) -> bytes:
    """One of the pictures as the content of its file."""
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        DRAWN[name]().savefig(content, format="svg", metadata={"Date": None})
    # Two digits behind the point are a fiftieth of a pixel, and half of the bytes.
    return re.sub(rb' d="[^"]*"', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]), content.getvalue())


def main() -> None:
    for name in DRAWN:
        (IMAGES / f"{name}.svg").write_bytes(svg(name))


if __name__ == "__main__":
    main()
