"""The spikes of one picture or recording on its way through a network, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from trevsnn.data.config import DataConfig
from trevsnn.data.part import About
from trevsnn.data.sets import is_event
from trevsnn.drawing import BLUE, TEXT, TITLE, VERMILION, short

SIDE, GAP, HEAD = 1.55, 0.42, 0.5  # inches: of a map, between maps, above them
SHOWN = 12  # timesteps in the picture at most, evenly spread, the first and the last among them


def spike_maps(spikes_LT: Sequence[Sequence[Tensor]]) -> list[list[NDArray[np.float64]]]:
    """For each level and timestep the share of channels that fire at each pixel (H_l, W_l), in 0..1.

    Args:
        spikes_LT: of one item, (1, C, H, W) each, as :meth:`trevsnn.TRevSNN.state_spikes` gives them.
    """
    return [[spikes[0].double().mean(0).cpu().numpy() for spikes in of_level] for of_level in spikes_LT]


def shown_inputs(x: Tensor, config: DataConfig, about: About) -> list[NDArray[np.float64]]:
    """What the network was given of one item, to be drawn: RGB (H, W, 3) in 0..1 each.

    Args:
        x: (1, C, H, W) or (1, T, C, H, W), as :func:`trevsnn.data.files.read_inputs` gives it.
        config: data.* of the run.
        about: of the run's data, whose mean and deviation are taken back from pictures.

    Returns:
        One picture; or of events, and of pictures seen row by row, a frame for each timestep.
    """
    frames_TCHW = (x[0] if x.dim() == 5 else x).double().cpu()
    if is_event(config):  # white where there are none, vermilion where it grows brighter, blue where darker
        most = float(torch.quantile(frames_TCHW[frames_TCHW > 0], 0.98)) if bool((frames_TCHW > 0).any()) else 1.0
        darker, brighter = (frames_TCHW / most).clamp(0, 1).unbind(1)
        blue, vermilion = (1 - torch.tensor(to_rgb(colour), dtype=torch.float64) for colour in (BLUE, VERMILION))
        ink = darker[..., None] * blue + brighter[..., None] * vermilion
        return [frame.numpy() for frame in (1 - ink).clamp(0, 1)]
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (about.mean, about.std))
    pictures = (frames_TCHW * std + mean).clamp(0, 1).movedim(1, -1)
    return [picture.expand(*picture.shape[:2], 3).numpy() for picture in pictures]


def spikes_picture(
    maps_LT: Sequence[Sequence[NDArray[np.float64]]], inputs: Sequence[NDArray[np.float64]], title: str
) -> Figure:
    """A map for each level, the lowest below, and each timestep, with its firing rate; the input below them.

    Args:
        maps_LT: of :func:`spike_maps`.
        inputs: of :func:`shown_inputs`.
        title: of the picture.
    """
    levels, timesteps = len(maps_LT), len(maps_LT[0])
    shown = np.unique(np.linspace(0, timesteps - 1, min(timesteps, SHOWN)).round().astype(int)).tolist()
    height_to_width = inputs[0].shape[0] / inputs[0].shape[1]
    tall, left = SIDE * min(max(height_to_width, 0.4), 2.5), 0.95
    width = max(left + len(shown) * (SIDE + 0.2) + 0.9, 5.2)
    height = HEAD + (levels + 1) * (tall + GAP) + 0.1
    figure = Figure(figsize=(width, height))
    highest = max(float(map_HW.max()) for row in maps_LT for map_HW in row) or 1.0

    def place(row: int, column: int) -> Axes:
        bottom = 0.1 + row * (tall + GAP)
        axes = figure.add_axes(((left + column * (SIDE + 0.2)) / width, bottom / height, SIDE / width, tall / height))
        axes.set(xticks=[], yticks=[])
        return axes

    image = None
    for column, t in enumerate(shown):
        for level in range(levels):
            axes = place(level + 1, column)
            image = axes.imshow(
                maps_LT[level][t], cmap="cividis", vmin=0, vmax=highest, interpolation="nearest", aspect="auto"
            )
            rate = f"{100 * maps_LT[level][t].mean():.0f} %"
            axes.set_title(f"t = {t}:  {rate}" if level == levels - 1 else rate, fontsize=TEXT, pad=4)
        if column < len(inputs):
            axes = place(0, column)
            axes.imshow(inputs[t if len(inputs) > 1 else 0], interpolation="nearest", aspect="auto")
    for row in range(levels + 1):
        middle = 0.1 + row * (tall + GAP) + tall / 2
        figure.text(0.12 / width, middle / height, f"level {row - 1}" if row else "input", va="center", fontsize=TEXT)
    assert image is not None
    bar = figure.add_axes(
        (
            (left + len(shown) * (SIDE + 0.2)) / width,
            (0.1 + tall + GAP) / height,
            0.14 / width,
            (levels * (tall + GAP) - GAP) / height,
        )
    )
    figure.colorbar(image, cax=bar, format=lambda share, _: f"{100 * share:.0f} %").ax.tick_params(labelsize=TEXT)
    figure.text(0.12 / width, 1 - 0.08 / height, short(title), va="top", fontsize=TITLE, parse_math=False)
    return figure
