"""Weights in 8 bits. Spikes are 0 or 1, so that activations lose nothing by it."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trevsnn.deploy.folded import FoldedTRevSNN


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


def save_quantised(tensors: dict[str, Tensor], path: Path) -> None:
    """Write the tensors of :func:`quantise` as safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
