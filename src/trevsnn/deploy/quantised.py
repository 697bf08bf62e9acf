"""Networks with their weights in 8 bits, computed in float32. Only weights are rounded, no maps."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from trevsnn.deploy.fingerprint import FINGERPRINT, check_fingerprint
from trevsnn.deploy.folded import FoldedTRevSNN, fold
from trevsnn.errors import RunError
from trevsnn.files import read_file
from trevsnn.network.hub import check_finite, save_tensors
from trevsnn.network.model import TRevSNN
from trevsnn.network.packing import pack, unpack
from trevsnn.network.size import HEADER, numbers_of

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
    folded = fold(model)
    try:
        content = read_file(path, 8 * numbers_of(lambda: model) + HEADER)
        tensors = load(content)
        check_fingerprint(_metadata(content).get(FINGERPRINT), model, path)
        folded.load_state_dict(unpack(tensors))
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise RunError(f"{path} is missing or damaged ({error}): export the model again.") from error
    check_finite(folded, path)
    return folded


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata of a sound safetensors file, whose header is JSON after its length in 8 bytes."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
