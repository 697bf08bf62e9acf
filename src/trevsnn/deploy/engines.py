"""The ways to run a trained network, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from trevsnn.deploy import Engine
from trevsnn.deploy.folded import fold
from trevsnn.deploy.int8.engine import SpikeDriven
from trevsnn.deploy.onnx.model import OnnxModel
from trevsnn.deploy.quantised import load_quantised
from trevsnn.errors import UsageError
from trevsnn.network.model import TRevSNN
from trevsnn.zoo.presets import pretrained_folder

_FILES = {
    "onnx": "model.onnx", "int8": "model-int8.safetensors", "onnx-int8": "model-int8.onnx", "spikes": "model-int8.onnx",
}  # fmt: skip


def make_engine(name: Engine, model: TRevSNN, folder: Path) -> Callable[[Tensor], Tensor]:
    """From inputs of the model to logits, on the model's device ("spikes" and those of ONNX Runtime: on the CPU).

    Args:
        name: which engine.
        model: with its trained weights, in evaluation mode.
        folder: that it came from.

    Raises:
        UsageError: a run that was not exported and an engine that needs one of its files, or an optional library is
            missing.
        RunError: their file is damaged or of another model.
    """
    if name == "eager":
        return model
    if name == "folded":
        return fold(model)
    path = (pretrained_folder(str(folder)) or folder) / _FILES[name]
    if not path.is_file():
        raise UsageError(f"{folder} holds no {path.name}: make one with trevsnn export RUN --out DIR, and give DIR.")
    if name == "int8":
        return load_quantised(path, model.cpu().float())
    return (SpikeDriven if name == "spikes" else OnnxModel)(path, model.cpu())
