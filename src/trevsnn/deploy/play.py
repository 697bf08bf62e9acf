"""``trevsnn stream``: a recording played to a network, and its prediction over time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from trevsnn.data.events.frames import frame_numbers
from trevsnn.data.files import read_inputs, read_item
from trevsnn.data.overrides import AS_TRAINED, DataOverrides
from trevsnn.data.sets import is_event
from trevsnn.drawing import COLOURS, chart, name_lines, plain
from trevsnn.errors import UsageError
from trevsnn.run.load import Weights, load_run

DRAWN = len(COLOURS)  # classes in the figure at most, those that are likeliest at any time
LEAST = 0.02  # the probability that each but the first reaches
MARKED = 40  # frames or windows up to which each has a mark


def play(run: Path, recording: Path, weights: Weights, data: DataOverrides = AS_TRAINED) -> Iterator[dict[str, Any]]:
    """Give a recording's T frames to a run's network one at a time.

    Args:
        run: trained on recordings.
        recording: a file; a run that was trained on pieces plays the first one.
        weights: which of the run's.
        data: what the numbers of plain tables mean where that is not what the run's config says.

    Yields:
        After each frame its number ``frame``, from 1; ``until``, the time of its last event in microseconds from the
        recording's first; the likeliest ``class`` so far, its ``probability``, the ``probabilities`` of all classes, and the
        ``seconds`` it took to compute.

    Raises:
        UsageError: the run was trained on pictures.
        RunError: the run cannot be read.
        UnreadableError: the recording is missing, truncated or of another kind.
    """
    model, config, about, _ = load_run(run, weights)
    own = data.over(config.data)
    if not is_event(own):
        raise UsageError(f"{run} was trained on pictures: use trevsnn predict, or give a run on recordings.")
    frames_TCHW = read_inputs([recording], own, about, config.model.timesteps)[0]
    events = read_item(recording, own)
    frame_of_event = frame_numbers(events, config.model.timesteps, own.bin_by)
    stream = model.stream(1)
    for t, frame_CHW in enumerate(frames_TCHW):
        start = time.perf_counter()
        classified = likeliest(stream.step(frame_CHW[None])[0], about.classes)
        seconds = time.perf_counter() - start
        yield {
            "frame": t + 1,
            "until": int(events["t"][np.searchsorted(frame_of_event, t, "right") - 1] - events["t"][0]),
            **classified,
            "seconds": seconds,
        }


def likeliest(logits_K: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """The likeliest ``class``, its ``probability``, and the ``probabilities`` of all, by the logits of an item."""
    probabilities = logits_K.double().softmax(0).tolist()
    best = int(np.argmax(probabilities))
    return {
        "class": classes[best], "probability": probabilities[best],
        "probabilities": dict(zip(classes, probabilities, strict=True)),
    }  # fmt: skip


def play_picture(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """The probabilities of the classes over the time of the recording, from the rows of :func:`play`: of those whose highest
    probability is highest, as far as it can be seen."""
    highest = {name: max(row["probabilities"][name] for row in rows) for name in rows[0]["probabilities"]}
    first, *others = sorted(highest, key=highest.__getitem__, reverse=True)
    names = [first, *(name for name in others[: DRAWN - 1] if highest[name] >= LEAST)]
    figure, (axes,) = chart(8.5, 4.2, names)
    milliseconds = [row["until"] / 1e3 for row in rows]
    marker = "o" if len(rows) <= MARKED else None
    lines = [
        axes.plot(milliseconds, [100 * row["probabilities"][name] for row in rows], marker=marker, color=colour, label=name)[0]
        for name, colour in zip(names, COLOURS, strict=False)
    ]  # fmt: skip
    axes.set(ylim=(0, 102))
    of = f"; {len(names)} of {len(highest)} classes" if len(names) < len(highest) else ""
    plain(axes, f"{title}{of}", "milliseconds of the recording", "probability, %")
    name_lines(axes, lines, names)
    return figure
