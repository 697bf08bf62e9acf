"""The ways to run a trained network, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from torch import Tensor

from trevsnn.deploy.folded import fold
from trevsnn.deploy.onnx_model import OnnxModel
from trevsnn.errors import UsageError
from trevsnn.model import TRevSNN

#: "eager", the network itself; "folded"; "onnx", ONNX Runtime on an exported folder's model.onnx.
Engine = Literal["eager", "folded", "onnx"]


def make_engine(name: Engine, model: TRevSNN, folder: Path) -> Callable[[Tensor], Tensor]:
    """From inputs of the model to logits, on the model's device ("onnx": on the CPU).

    Args:
        name: which engine.
        model: with its trained weights, in evaluation mode.
        folder: that it came from.

    Raises:
        UsageError: "onnx" of a run that was not exported, or without ONNX Runtime.
        RunError: the ONNX file is damaged or of another model.
    """
    if name == "eager":
        return model
    if name == "folded":
        return fold(model)
    if not (folder / "model.onnx").is_file():
        raise UsageError(f"{folder} holds no model.onnx: make one with trevsnn export RUN --out DIR, and give DIR.")
    return OnnxModel(folder / "model.onnx", fold(model.cpu().float()))
