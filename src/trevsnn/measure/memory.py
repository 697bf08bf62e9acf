"""Memory of a training step, per picture: by part of the network, and against the number of timesteps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from trevsnn.drawing import COLOURS, chart, name_lines, plain
from trevsnn.errors import UsageError
from trevsnn.measure.step import TrainingStep, check_keep_counts
from trevsnn.measure.tracker import Bytes, LiveStorage
from trevsnn.network.blocks import bounded_alpha
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.model import TRevSNN
from trevsnn.network.slicing import SLICE_BYTES_ACCELERATOR
from trevsnn.reversible.inversion import read_alpha
from trevsnn.reversible.memory_owner import owner

# The one operation of a training step for which PyTorch has no rule on tensors without data.
_meta = torch.library.Library("aten", "IMPL", "Meta")
_meta.impl("batch_norm_update_stats", lambda x, mean, var, momentum: (torch.empty_like(mean), torch.empty_like(var)))


class Footprint(NamedTuple):
    """Bytes of live tensors by part, without parameters, their gradients and buffers.

    Attributes:
        after_forward: what is alive after the forward pass.
        peak: what is alive when most is.
    """

    after_forward: Bytes
    peak: Bytes


def footprint(model: nn.Module, inputs: Sequence[Tensor], loss: Callable[[], Tensor]) -> Footprint:
    """Count the tensors of one training step.

    Args:
        model: whose parameters, gradients and buffers are left out; its gradients must be None.
        inputs: of the step; they count as "input".
        loss: the forward pass, to a loss ().

    Returns:
        What is alive after the forward pass, and at the moment of the step when most is alive.
    """
    with LiveStorage([*model.parameters(), *model.buffers()]) as tracker:
        for tensor in inputs:
            tracker.add(tensor, "input")
        value = loss()
        after_forward = tracker.live()
        value.backward()
        del value
    return Footprint(after_forward, tracker.peak(without=[p.grad for p in model.parameters() if p.grad is not None]))


def measure_memory(config: TRevSNNConfig, step: TrainingStep, *, fake: bool = False) -> dict[str, Any]:
    """Count the tensors of one training step, by part.

    Args:
        config: of the model.
        step: the training step.
        fake: count tensors without data, for sizes that do not fit this machine. With "cuda" on a machine without it,
            they are CPU tensors in an accelerator's slices.

    Returns:
        The arguments and, in bytes per picture, ``after_forward`` and ``peak`` by part, and the sums over parts
        ``after_forward_total`` and ``peak_total``.

    Raises:
        UsageError: there is no CUDA device, and not ``fake``, or ``config.keep`` is a share of it.
    """
    asked = step
    if step.device == "cuda" and not torch.cuda.is_available():
        if not fake:
            step.require_device()
        if config.keep is not None and config.keep.endswith("%"):
            raise UsageError(
                f"keep is {config.keep!r}, a share of a CUDA device's memory, and this machine has none: give it in GB."
            )
        slice_bytes = SLICE_BYTES_ACCELERATOR if config.slice_bytes is None else config.slice_bytes
        config, step = dataclasses.replace(config, slice_bytes=slice_bytes), dataclasses.replace(step, device="cpu")
    model = step.build(config)
    if config.backprop == "reversible":  # its bytes do not depend on alpha, but at 1 it accepts more timesteps
        with torch.no_grad():
            for alpha in (alpha for level in model.levels for alpha in level.alphas):  # type: ignore[union-attr]
                alpha.fill_(1.0)
    if fake:
        with FakeTensorMode():
            forget_data(model)
            bytes_of = _step_footprint(model, step)
    else:
        bytes_of = _step_footprint(model, step)
    result: dict[str, Any] = {
        "backprop": config.backprop, "timesteps": config.timesteps, **dataclasses.asdict(asked), "fake": fake,
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    for name, parts in bytes_of._asdict().items():
        result[name] = {part: nbytes / step.batch for part, nbytes in parts.items()}
        result[f"{name}_total"] = sum(parts.values()) / step.batch
    return result


def measure_slopes(
    config: TRevSNNConfig, step: TrainingStep, *, modes: Sequence[str], timesteps: Sequence[int], fake: bool = False
) -> dict[str, Any]:
    """The memory of a training step by several backward passes, of which ``exact`` keeps ``config.keep``, and for several T.

    Args:
        config: of the network; its ``backprop`` and ``timesteps`` do not count.
        step: the training step.
        modes: backward passes, such as ``("exact", "autograd")``.
        timesteps: T, rising.
        fake: count tensors without data, for sizes that do not fit this machine; a CUDA device need not be there then.

    Returns:
        In ``rows``, for each mode and T, the arguments and, in bytes per picture, ``after_forward`` and ``peak`` by part of the
        network, with their sums ``after_forward_total`` and ``peak_total``. In ``slopes`` by mode the growth of the peak from the first to
        the last T, in bytes per picture and timestep; empty for a single T.

    Raises:
        UsageError: ``step`` is on CUDA, which is not there, and it is not ``fake``, or ``config.keep`` is a share of it; or
            ``config.keep`` is given and no mode is "exact".
    """
    check_keep_counts(config, modes)
    rows = [
        measure_memory(
            dataclasses.replace(config, backprop=mode, timesteps=t, keep=config.keep if mode == "exact" else None),
            step,
            fake=fake,
        )
        for mode in modes
        for t in timesteps
    ]
    slopes: dict[str, float] = {}
    if len(timesteps) > 1:
        for mode in modes:
            first, *_, last = [row for row in rows if row["backprop"] == mode]
            slopes[mode] = (last["peak_total"] - first["peak_total"]) / (last["timesteps"] - first["timesteps"])
    return {"rows": rows, "slopes": slopes}


def memory_picture(
    rows: Sequence[dict[str, Any]], title: str, *, label: str = "backprop", styles: Mapping[str, dict[str, Any]] | None = None
) -> Figure:  # fmt: skip
    """A picture of peak memory per picture against T, each line with its name and its last figure at its end.

    Args:
        rows: with ``timesteps``, ``peak_total`` in bytes per picture, and ``label``.
        title: of the picture.
        label: the key whose values are a line each.
        styles: of lines by their names, as Matplotlib's ``plot`` takes them; None for a colour each.
    """
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        lines.setdefault(row[label], []).append((row["timesteps"], row["peak_total"] / 1e6))
    names = [f"{max(points)[1]:,.{0 if max(points)[1] >= 100 else 1}f}  {name}" for name, points in lines.items()]
    figure, (axes,) = chart(10, 5, names)
    drawn = []
    for number, (name, points) in enumerate(lines.items()):
        style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)]} if styles is None else styles[name]
        drawn += axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=5, **style)
    axes.set(xscale="log", yscale="log")
    plain(axes, title, "timesteps T", "MB per picture")
    ticks = sorted({row["timesteps"] for row in rows})
    axes.set_xticks(ticks, labels=[str(t) for t in ticks], minor=False)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.minorticks_off()
    name_lines(axes, drawn, names)
    return figure


def _step_footprint(model: TRevSNN, step: TrainingStep) -> Footprint:
    x, target = step.inputs(model.config)
    # Whatever has no owner of its own: in the plain graph everything, otherwise what comes after the recurrence.
    with owner("blocks" if model.backprop == "autograd" else "heads"):
        return footprint(model, [x, target], lambda: step.loss(model, x, target))


def forget_data(model: TRevSNN) -> None:
    """Replace weights by fake ones. The alphas' numbers, which decide how many anchors are kept, are handed in."""
    numbers: dict[Tensor, NDArray[np.float64]] = {}
    # The network bounds an alpha, in one step of its graph, which leads back to the parameter.
    model.read_alpha = lambda bounded: numbers[bounded.grad_fn.next_functions[0][0].variable]  # type: ignore[union-attr]
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                fake = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                if isinstance(module, nn.ParameterList):
                    with unset_fake_temporarily():
                        numbers[fake] = read_alpha(bounded_alpha(parameter))
                module._parameters[name] = fake
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
