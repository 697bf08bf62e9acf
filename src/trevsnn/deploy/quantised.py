"""Networks with their weights in 8 bits, computed in float32. Only weights are rounded, no maps."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trevsnn.deploy.fingerprint import FINGERPRINT, check_fingerprint
from trevsnn.deploy.folded import FoldedTRevSNN, fold
from trevsnn.errors import RunError
from trevsnn.network.hub import check_finite, save_tensors
from trevsnn.network.model import TRevSNN
from trevsnn.network.packing import pack, unpack

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def quantise(network: Network) -> tuple[Network, dict[str, Tensor]]:
    """Round every weight to 8 bits (:func:`trevsnn.network.packing.pack`). Biases, alphas and states stay float.

    Args:
        network: folded or not. It stays as it is.

    Returns:
        A network that computes with the rounded weights, and its tensors as they are stored.
    """
    tensors = pack(network.state_dict())
    rounded = copy.deepcopy(network)
    rounded.load_state_dict(unpack(tensors))
    return rounded, tensors


def save_quantised(tensors: dict[str, Tensor], path: Path, fingerprint: str) -> None:
    """Write the tensors of :func:`quantise` as safetensors, with the fingerprint of the network in the metadata.

    Raises:
        RunError: the file cannot be written.
    """
    save_tensors(tensors, path, {FINGERPRINT: fingerprint})


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
        unpacked = unpack(tensors)
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path} is missing or damaged ({error}): export the model again.") from error
    folded = fold(model)
    folded.load_state_dict(unpacked)
    check_finite(folded, path)
    return folded
