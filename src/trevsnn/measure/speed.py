"""Time of training steps, several side by side on the same work."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trevsnn.measure.step import Step
from trevsnn.network.config import TRevSNNConfig


def step_times(
    steps: Mapping[str, tuple[nn.Module, Callable[[], Tensor]]], *, repeats: int, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Median seconds of forward and backward passes.

    Args:
        steps: by name a model and its forward pass to a loss. They take turns, so that a machine that slows down or
            speeds up meanwhile does so for all of them; one turn before the first is not counted.
        repeats: counted turns.
        device: "cuda" is waited for.

    Returns:
        By name: ``forward``, ``backward`` and ``step``, the median of their sum.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, (model, loss) in steps.items():
            model.zero_grad()
            start = _now(device)
            value = loss()
            middle = _now(device)
            value.backward()
            if turn > 0:
                times[name].append((middle - start, _now(device) - middle))
            del value
    return {
        name: {
            "forward": statistics.median(forward for forward, _ in found),
            "backward": statistics.median(backward for _, backward in found),
            "step": statistics.median(map(sum, found)),
        }
        for name, found in times.items()
    }


def measure_speed(config: TRevSNNConfig, step: Step, *, modes: Sequence[str], repeats: int = 5) -> list[dict[str, Any]]:
    """Time forward and backward passes of one model in several modes, without an optimizer's step.

    Returns:
        For each mode seconds per batch, pictures per second, and the ratio of its step to that of ``autograd``, which
        is always measured beside it.
    """
    step.require_device()
    chosen = list(dict.fromkeys([*modes, "autograd"]))
    model = step.build(config)
    x, target = step.inputs(config)

    def run(mode: Any) -> Tensor:
        model.set_backprop(mode)
        return step.loss(model, x, target)

    times = step_times(
        {mode: (model, lambda mode=mode: run(mode)) for mode in chosen}, repeats=repeats, device=step.device
    )
    return [
        {
            "backprop": mode, "timesteps": config.timesteps, **dataclasses.asdict(step), **times[mode],
            "pictures_per_second": step.batch / times[mode]["step"],
            "ratio_to_autograd": times[mode]["step"] / times["autograd"]["step"],
            "threads": torch.get_num_threads(),
        }
        for mode in chosen
    ]  # fmt: skip


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
