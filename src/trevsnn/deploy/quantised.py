"""Weights in 8 bits. Spikes are 0 or 1, so that activations lose nothing by it."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from trevsnn.deploy.fingerprint import MARK, check_mark
from trevsnn.deploy.folded import FoldedTRevSNN, fold
from trevsnn.errors import RunError
from trevsnn.files import write_file
from trevsnn.network.model import TRevSNN


@torch.no_grad()
def quantise(folded: FoldedTRevSNN) -> tuple[FoldedTRevSNN, dict[str, Tensor]]:
    """Round every weight to ``scale * q`` with ``q`` in -127..127 and ``scale = max |w| / 127`` per output channel.

    Biases, alphas and the states between layers stay float.

    Returns:
        A network that computes with the rounded weights, and its tensors: ``NAME.weight`` int8 and ``NAME.scale``
        float32 of every convolution and linear map, all else as it is.
    """
    rounded = copy.deepcopy(folded)
    tensors = dict(rounded.state_dict())
    for name, module in rounded.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight
            over = tuple(range(1, weight.dim()))
            scale = (weight.abs().amax(over, keepdim=True) / 127).clamp(min=torch.finfo(weight.dtype).tiny)
            codes = (weight / scale).round()
            weight.copy_(codes * scale)
            tensors[f"{name}.weight"] = codes.to(torch.int8)
            tensors[f"{name}.scale"] = scale.flatten()
    return rounded, tensors


def save_quantised(tensors: dict[str, Tensor], path: Path, mark: str) -> None:
    """Write the tensors of :func:`quantise` as safetensors, with the mark of the network they were made of."""
    write_file(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={MARK: mark}))


@torch.no_grad()
def load_quantised(path: Path, model: TRevSNN) -> FoldedTRevSNN:
    """The folded network with the weights of an 8-bit file of it; it computes in float32.

    Raises:
        RunError: the file is missing, damaged or of another network.
    """
    try:
        with safe_open(path, "pt") as file:
            check_mark((file.metadata() or {}).get(MARK), model, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is missing or damaged ({error}): export the model again.") from error
    folded = fold(model)
    for name, tensor in tensors.items():
        if tensor.dtype == torch.int8:
            scale = tensors[name.removesuffix("weight") + "scale"]
            tensors[name] = tensor * scale.view(-1, *[1] * (tensor.dim() - 1))
    folded.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.endswith(".scale")})
    return folded
