"""The folded network with its weights in 8 bits, computed in float32. Only weights are rounded, no maps."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from trevsnn.deploy.fingerprint import FINGERPRINT, check_fingerprint
from trevsnn.deploy.folded import FoldedTRevSNN, fold
from trevsnn.errors import RunError
from trevsnn.files import write_file
from trevsnn.network.hub import check_finite
from trevsnn.network.model import TRevSNN


@torch.no_grad()
def quantise(folded: FoldedTRevSNN) -> tuple[FoldedTRevSNN, dict[str, Tensor]]:
    """Round every weight to ``scale * q`` with ``q = round(w / scale)`` and ``scale = max |w| / 127`` per output channel.

    ``q`` is within -127..127. Biases, alphas and states stay float.

    Returns:
        A network that computes with the rounded weights, and its tensors: ``NAME.weight``, int8, and ``NAME.scale``,
        (N,), of every convolution and linear map, everything else as it is.
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


def save_quantised(tensors: dict[str, Tensor], path: Path, fingerprint: str) -> None:
    """Write the tensors of :func:`quantise` as safetensors, with the fingerprint of the network in the metadata.

    Raises:
        RunError: the file cannot be written.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_file(path, save(contiguous, metadata={FINGERPRINT: fingerprint}))


@torch.no_grad()
def load_quantised(path: Path, model: TRevSNN) -> FoldedTRevSNN:
    """The folded network with the weights of an 8-bit file, ``w = scale * q``; it computes in float32.

    Args:
        path: of the file that :func:`save_quantised` wrote.
        model: the network whose weights the file has to be made from.

    Raises:
        RunError: the file is missing, damaged or of another network, or a number in it is not finite.
    """
    try:
        with safe_open(path, "pt") as file:
            check_fingerprint((file.metadata() or {}).get(FINGERPRINT), model, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is not a dictionary
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is missing or damaged ({error}): export the model again.") from error
    folded = fold(model)
    for name, tensor in tensors.items():
        if tensor.dtype == torch.int8:
            scale = tensors[name.removesuffix("weight") + "scale"]
            tensors[name] = tensor * scale.view(-1, *[1] * (tensor.dim() - 1))
    folded.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.endswith(".scale")})
    check_finite(folded, path)
    return folded
