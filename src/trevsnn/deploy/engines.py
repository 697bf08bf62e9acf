"""The ways to run a trained network, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from torch import Tensor

from trevsnn.deploy.folded import fold
from trevsnn.deploy.onnx_model import OnnxModel
from trevsnn.deploy.spike_driven import spike_driven
from trevsnn.errors import UsageError
from trevsnn.model import TRevSNN

#: "eager", the network itself; "folded"; "spikes", spike-driven where it fires rarely; "onnx", ONNX Runtime on an
#: exported folder's model.onnx.
Engine = Literal["eager", "folded", "spikes", "onnx"]


def make_engine(name: Engine, model: TRevSNN, folder: Path, x: Tensor) -> Callable[[Tensor], Tensor]:
    """From inputs of the model to logits, on the model's device ("onnx" and "spikes": on the CPU).

    Args:
        name: which engine.
        model: with its trained weights, in evaluation mode.
        folder: that it came from.
        x: inputs for "spikes" to measure firing rates on.

    Raises:
        UsageError: "onnx" of a run that was not exported, or an optional library is missing.
        RunError: the ONNX file is damaged or of another model.
    """
    if name == "eager":
        return model
    if name == "folded":
        return fold(model)
    if name == "spikes":
        return spike_driven(fold(model.cpu()), x)[0]
    if not (folder / "model.onnx").is_file():
        raise UsageError(f"{folder} holds no model.onnx: make one with trevsnn export RUN --out DIR, and give DIR.")
    return OnnxModel(folder / "model.onnx", fold(model.cpu().float()))
