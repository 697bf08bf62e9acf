"""Time of training steps, of several models or modes side by side."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trevsnn.measure.step import TrainingStep, check_keep_counts
from trevsnn.network.config import TRevSNNConfig


def step_times(
    steps: Mapping[str, tuple[nn.Module, Callable[[], Tensor]]], *, repeats: int, device: str = "cpu",
    beside: str | None = None,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Median seconds of forward and backward passes.

    Args:
        steps: by name a model and its forward pass to a loss (). They take turns, so that a machine that becomes slower
            or faster meanwhile does so for all of them; a first turn is not counted.
        repeats: turns that are counted.
        device: "cuda" is waited for before a clock is read.
        beside: the name whose steps the others' are compared with.

    Returns:
        By name the medians of ``forward``, ``backward``, and their sum ``step``; with ``beside`` also ``ratio``, the median of
        the step's time to that of ``beside`` in the same turn, which a machine that changes its speed moves least.
    """
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}  # seconds forward, backward
    for turn in range(repeats + 1):
        for name, (model, loss) in steps.items():
            model.zero_grad()
            start = _now(device)
            value = loss()
            middle = _now(device)
            value.backward()
            if turn > 0:
                turns[name].append((middle - start, _now(device) - middle))
            del value
    times = {
        name: {
            "forward": statistics.median(forward for forward, _ in seconds),
            "backward": statistics.median(backward for _, backward in seconds),
            "step": statistics.median(map(sum, seconds)),
        }
        for name, seconds in turns.items()
    }
    if beside is not None:
        for name, seconds in turns.items():
            pairs = zip(map(sum, seconds), map(sum, turns[beside]), strict=True)
            times[name]["ratio"] = statistics.median(own / other for own, other in pairs)
    return times


def measure_speed(
    config: TRevSNNConfig, step: TrainingStep, *, modes: Sequence[str], repeats: int = 5
) -> list[dict[str, Any]]:
    """Time forward and backward passes of one model in several modes, without the optimizer.

    Returns:
        For each mode ``forward``, ``backward`` and ``step`` in seconds per batch, ``pictures_per_second``, and
        ``ratio_to_autograd``, the median ratio of its step to that of ``autograd`` in the same turn, which is always
        measured too.

    Raises:
        UsageError: there is no CUDA device, and ``step`` asks for it; or ``config.keep`` is given and no mode is "exact".
    """
    check_keep_counts(config, modes)
    step.require_device()
    chosen = list(dict.fromkeys([*modes, "autograd"]))
    model = step.build(config)
    x, target = step.inputs(config)

    def run(mode: Any) -> Tensor:
        model.set_backprop(mode)
        return step.loss(model, x, target)

    steps = {mode: (model, lambda mode=mode: run(mode)) for mode in chosen}
    times = step_times(steps, repeats=repeats, device=step.device, beside="autograd")
    return [
        {
            "backprop": mode, "timesteps": config.timesteps, **dataclasses.asdict(step),
            **{name: times[mode][name] for name in ("forward", "backward", "step")},
            "pictures_per_second": step.batch / times[mode]["step"],
            "ratio_to_autograd": times[mode]["ratio"],
            "threads": torch.get_num_threads(),
        }
        for mode in chosen
    ]  # fmt: skip


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
