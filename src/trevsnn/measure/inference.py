"""Time of inference: the engines and torchvision's ResNet-18, side by side."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchvision.models import resnet18

from trevsnn.deploy.extras import require
from trevsnn.deploy.folded import FoldedTRevSNN, fold
from trevsnn.deploy.int8.engine import SpikeDriven
from trevsnn.deploy.onnx.float32 import export_float32
from trevsnn.deploy.onnx.int8 import export_integer
from trevsnn.deploy.onnx.model import OnnxModel
from trevsnn.deploy.quantised import quantise
from trevsnn.drawing import BLACK, COLOURS, chart, name_lines, plain
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.model import TRevSNN
from trevsnn.network.spike import THRESHOLD
from trevsnn.sizes import Size, height_and_width


@torch.no_grad()
def measure_inference(
    config: TRevSNNConfig, *, engines: Sequence[str], size: Size, batch: int, repeats: int, rates: Sequence[float] = (),
    level_rates: Sequence[float] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Time forward passes of a network with new weights on the CPU.

    The time of "spikes", the spike-driven engine in 8-bit arithmetic, depends on firing rates: it is measured at each of
    ``rates``, and at ``level_rates``.

    Image networks are timed beside torchvision's ResNet-18 with as many input channels and classes, in PyTorch
    ("resnet18") and in ONNX Runtime ("resnet18, onnx"; with engine "onnx-int8" also "resnet18, onnx-int8", quantised by
    ONNX Runtime's own tool).

    Args:
        config: of the network.
        engines: those of :func:`trevsnn.deploy.engines.make_engine`, and "compiled" (torch.compile of the folded
            network).
        size: of pictures or frames in pixels, the side of a square, or height and width.
        batch: items at a time, for throughput.
        repeats: of every measurement.
        rates: firing rates in 0..1 of all hidden neurons.
        level_rates: firing rates in 0..1 of the hidden neurons of each level, such as a trained network has.

    Returns:
        For each engine ``engine``, ``rate`` (of ``rates``, else None), ``latency``: median seconds of one item,
        ``items_per_second`` in batches of ``batch``, ``batch`` and ``threads``.

    Raises:
        UsageError: the extra ``deploy`` is not installed, or of image networks ``bench``.
        ValueError: there are not as many ``level_rates`` as levels.
    """
    levels = len(config.channels)
    if level_rates is not None and len(level_rates) != levels:
        raise ValueError(f"there are {len(level_rates)} firing rates of levels; the network has {levels} levels.")
    model = TRevSNN(config).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    frames = (config.timesteps,) if config.input == "event" else ()
    x = torch.randn(max(2, batch), *frames, config.in_chans or 0, *height_and_width(size))
    with tempfile.TemporaryDirectory() as folder:
        chosen = {name: _make(name, model, x[:2], Path(folder)) for name in engines if name != "spikes"}
        at = {f"spikes, {rate:.0%}": rate for rate in rates}
        set_rates = {name: [rate] * levels for name, rate in at.items()}
        if level_rates is not None:
            set_rates[f"spikes, {'/'.join(f'{100 * rate:.0f}' for rate in level_rates)}%"] = list(level_rates)
        for number, (name, rates_L) in enumerate(set_rates.items() if "spikes" in engines else ()):
            folded, path = fold(model), Path(folder) / f"spikes-{number}.onnx"
            set_firing_rates(folded, x[:2], rates_L)
            export_integer(folded, x[:2], path)
            chosen[name] = SpikeDriven(path)
        if config.input == "image":
            chosen |= _resnet(config, x[:2], Path(folder), integer="onnx-int8" in engines)
        latency = times(chosen, x[:1], repeats)
        throughput = times(chosen, x[:batch], repeats)
    return [
        {"engine": name, "rate": at.get(name), "latency": latency[name], "batch": batch, "items_per_second": batch / throughput[name],
         "threads": torch.get_num_threads()}
        for name in chosen
    ]  # fmt: skip


def _make(name: str, model: TRevSNN, example: Tensor, folder: Path) -> Callable[[Tensor], Tensor]:
    if name == "eager":
        return model
    folded = fold(model)
    if name == "folded":
        return folded
    if name == "compiled":
        return torch.compile(folded, dynamic=False)
    if name == "int8":
        return quantise(folded)[0]
    if name == "onnx-int8":
        export_integer(folded, example, folder / "model-int8.onnx")
        return OnnxModel(folder / "model-int8.onnx")
    export_float32(folded, folder / "model.onnx")
    return OnnxModel(folder / "model.onnx")


def set_firing_rates(folded: FoldedTRevSNN, x: Tensor, rates_L: Sequence[float]) -> None:
    """Shift the biases of every PW1, in place, so that its hidden neurons fire at their level's rate.

    Args:
        folded: the network.
        x: its inputs, on which the rates are set.
        rates_L: for each level, in 0..1.
    """

    def shift(rate: float, module: nn.Module, _: Any, potential: Tensor) -> Tensor:
        assert isinstance(module, nn.Conv2d)
        assert module.bias is not None
        values = potential.flatten()[:: max(1, potential.numel() // 2**20)]  # quantile has an upper limit
        offset = THRESHOLD - values.quantile(1 - rate)
        module.bias += offset
        return potential + offset

    handles = [
        module.register_forward_hook(partial(shift, rate))
        for level, rate in zip(folded.levels, rates_L, strict=True)
        for name, module in level.named_modules()
        if name.endswith(".pw1")
    ]
    folded(x)
    for handle in handles:
        handle.remove()


def _resnet(
    config: TRevSNNConfig, example: Tensor, folder: Path, *, integer: bool
) -> dict[str, Callable[[Tensor], Tensor]]:
    model = resnet18(num_classes=config.num_classes).eval()
    if config.in_chans != 3:
        model.conv1 = nn.Conv2d(config.in_chans or 0, 64, 7, 2, 3, bias=False)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _export_onnx(model, example, folder / "resnet18.onnx")
    networks = {"resnet18": model, "resnet18, onnx": OnnxModel(folder / "resnet18.onnx")}
    if integer:
        _quantise_onnx(folder / "resnet18.onnx", folder / "resnet18-int8.onnx", example)
        networks["resnet18, onnx-int8"] = OnnxModel(folder / "resnet18-int8.onnx")
    return networks


def _export_onnx(model: nn.Module, example: Tensor, path: Path) -> None:
    """Another network's ONNX file, with a batch of any size, by PyTorch's exporter."""
    require("onnxscript", "bench")
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):  # they report every stage and every node they simplify
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (example,), path, dynamo=True, external_data=False, input_names=["input"], output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
        )  # fmt: skip


def _quantise_onnx(path: Path, out: Path, calibration: Tensor) -> None:
    """Another network's ONNX file in 8-bit arithmetic, by ONNX Runtime's static quantisation."""
    quantization = require("onnxruntime.quantization")
    shapes = require("onnxruntime.quantization.shape_inference")

    class Reader(quantization.CalibrationDataReader):
        inputs = iter(calibration.split(1))

        def get_next(self) -> dict[str, Any] | None:
            x = next(self.inputs, None)
            return None if x is None else {"input": x.contiguous().numpy()}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = path.with_name(f"{path.stem}-prepared.onnx")
        shapes.quant_pre_process(str(path), str(prepared))
        quantization.quantize_static(str(prepared), str(out), Reader(), per_channel=True)


def times(engines: Mapping[str, Callable[[Tensor], Tensor]], x: Tensor, repeats: int) -> dict[str, float]:
    """Median seconds of each engine on ``x``.

    The engines take turns of two calls each, of which the second is counted: ONNX Runtime's threads go on spinning for a
    while after its last call and slow down the first call of the next engine. Two first turns are not counted.
    """
    x = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(repeats + 2):
        for name, engine in engines.items():
            engine(x)
            start = time.perf_counter()
            engine(x)
            if turn > 1:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def inference_picture(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """A picture of the time of one item against the firing rate.

    The spike-driven engine's times at ``rates`` are a curve; the other engines do not depend on firing rates and are
    horizontal lines.

    Args:
        rows: of :func:`measure_inference`.
        title: of the picture.
    """
    others = [row for row in rows if row["rate"] is None]
    names = ["spikes", *(row["engine"] for row in others)]
    figure, (axes,) = chart(8.5, 4.5, names)
    points = sorted((100 * row["rate"], 1e3 * row["latency"]) for row in rows if row["rate"] is not None)
    lines = axes.plot(*zip(*points, strict=True), marker="o", color=BLACK, linewidth=2.5)
    ends = [points[0][0], points[-1][0]]
    for row, colour in zip(others, cycle(COLOURS[:-2]), strict=False):
        lines += axes.plot(ends, [1e3 * row["latency"]] * 2, linestyle="--", color=colour)
    axes.set(ylim=(0, None))
    plain(axes, title, "firing rate of hidden neurons, %", "ms per item")
    name_lines(axes, lines, names)
    return figure
