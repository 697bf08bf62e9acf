"""Makes the inference engine of a name; :data:`trevsnn.deploy.Engine` says what each one is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from trevsnn.data.config import DataConfig
from trevsnn.deploy import Engine
from trevsnn.deploy.folded import fold
from trevsnn.deploy.int8.engine import SpikeDriven
from trevsnn.deploy.onnx.model import OnnxModel
from trevsnn.deploy.quantised import load_quantised
from trevsnn.errors import UsageError
from trevsnn.network.model import TRevSNN
from trevsnn.run.config import Accelerator
from trevsnn.sizes import size_text
from trevsnn.zoo.presets import network_folder

_FILES = {
    "onnx": "model.onnx", "int8": "model-int8.safetensors", "onnx-int8": "model-int8.onnx", "spikes": "model-int8.onnx",
}  # fmt: skip

# These compute on any device and in any precision, the others on a CPU in float32.
BY_PYTORCH: tuple[Engine, ...] = ("eager", "folded")


def accelerator_for(engine: Engine, accelerator: Accelerator) -> Accelerator:
    """Where the network of an engine goes: to the CPU where the engine knows no other device."""
    return accelerator if engine in BY_PYTORCH else "cpu"


def make_engine(name: Engine, model: TRevSNN, folder: Path) -> Callable[[Tensor], Tensor]:
    """What computes the model's logits (B, K) from its inputs.

    "eager" and "folded" run on the model's device, the others on the CPU.

    Args:
        name: of the engine.
        model: with its trained weights, in evaluation mode.
        folder: that the model came from.

    Raises:
        UsageError: the folder does not hold the exported file that the engine needs, or an optional library is missing.
        RunError: the exported file is damaged or of another model.
    """
    if name == "eager":
        return model
    if name == "folded":
        return fold(model)
    path = network_folder(folder) / _FILES[name]
    if not path.is_file():
        raise UsageError(f"{folder} holds no {path.name}: make one with trevsnn export RUN --out DIR, and give DIR.")
    if name == "int8":
        return load_quantised(path, model.cpu().float())
    return (SpikeDriven if name == "spikes" else OnnxModel)(path, model.cpu())


def check_size(engine: Callable[[Tensor], Tensor], data: DataConfig, name: Engine) -> None:
    """Check that an engine takes items of the size that a config gives them: some exported files have a fixed one.

    Raises:
        UsageError: it does not.
    """
    height, width = data.size_HW
    given = (1 if data.rows else height, width)
    taken = list(getattr(engine, "shape", ()))[-2:]  # of a network, which takes any size, there is none
    if any(isinstance(side, int) and side != own for side, own in zip(taken, given, strict=False)):
        raise UsageError(
            f"the file of the engine {name} takes {taken[0]} x {taken[1]} pixels alone, not {size_text(given)}: export it for "
            f"that size with trevsnn export --data.image_size {height} {width}, or take another engine."
        )
