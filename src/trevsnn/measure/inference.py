"""Time of inference: the engines and an ordinary network side by side, taking turns."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from trevsnn.deploy.folded import fold
from trevsnn.deploy.onnx_model import OnnxModel, export_onnx
from trevsnn.model import TRevSNN, TRevSNNConfig


@torch.no_grad()
def measure_inference(
    config: TRevSNNConfig, *, engines: Sequence[str], size: int, batch: int, repeats: int
) -> list[dict[str, Any]]:
    """Median seconds of a forward pass with batch 1 and with ``batch``, on the CPU, float32, of a network with new
    weights, on which the time of these engines does not depend.

    torchvision's ResNet-18 stands beside image networks, in PyTorch ("resnet18") and in ONNX Runtime
    ("resnet18, onnx"), with as many input channels and classes.

    Args:
        config: of the network.
        engines: "eager", "folded", "compiled" (torch.compile) or "onnx" (ONNX Runtime).
        size: of pictures or frames, in pixels.
        batch: items at a time, for throughput.
        repeats: of every measurement.

    Raises:
        UsageError: the extra ``deploy`` is not installed.
    """
    model = TRevSNN(config).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    frames = (config.timesteps,) if config.input == "event" else ()
    x = torch.randn(max(2, batch), *frames, config.in_chans or 0, size, size)
    with tempfile.TemporaryDirectory() as folder:
        chosen = {name: _make(name, model, x[:2], Path(folder)) for name in engines}
        if config.input == "image":
            chosen |= _resnet(config, x[:2], Path(folder))
        latency = times(chosen, x[:1], repeats)
        throughput = times(chosen, x[:batch], repeats)
    return [
        {"engine": name, "latency": latency[name], "batch": batch, "items_per_second": batch / throughput[name],
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
    export_onnx(folded, example, folder / "model.onnx")
    return OnnxModel(folder / "model.onnx")


def _resnet(config: TRevSNNConfig, example: Tensor, folder: Path) -> dict[str, Callable[[Tensor], Tensor]]:
    model = resnet18(num_classes=config.num_classes).eval()
    if config.in_chans != 3:
        model.conv1 = nn.Conv2d(config.in_chans or 0, 64, 7, 2, 3, bias=False)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    export_onnx(model, example, folder / "resnet18.onnx")
    return {"resnet18": model, "resnet18, onnx": OnnxModel(folder / "resnet18.onnx")}


def times(engines: Mapping[str, Callable[[Tensor], Tensor]], x: Tensor, repeats: int) -> dict[str, float]:
    """Median seconds of each engine on ``x``; they take turns, and two turns before the first are not counted."""
    x = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    found: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(repeats + 2):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(x)
            if turn > 1:
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}
