"""Weights in 8 bits, as they are stored: ``w = scale * q`` with one scale for each output channel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_WEIGHT, _SCALE = ".weight", ".scale"


@torch.no_grad()
def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round the weights of a state dict: ``scale = max |w| / 127`` over an output channel, ``q = round(w / scale)``.

    Args:
        tensors: of a network. Those named ``NAME.weight`` with two axes or more, the output channels first, are rounded.

    Returns:
        ``NAME.weight``, int8 within -127..127, and ``NAME.scale``, (N,), for each of them; the others as they are.
    """
    packed = dict(tensors)
    for name, weight in tensors.items():
        if name.endswith(_WEIGHT) and weight.dim() > 1:
            scale_N = weight.abs().flatten(1).amax(1).div(127).clamp(min=torch.finfo(weight.dtype).tiny)
            packed[name] = (weight / _by_channel(scale_N, weight)).round().to(torch.int8)
            packed[name.removesuffix(_WEIGHT) + _SCALE] = scale_N
    return packed


@torch.no_grad()
def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict whose weights are the numbers that :func:`pack` rounded to; any other as it is.

    Raises:
        ValueError: a weight of 8 bits has no scale for each output channel, a floating-point number of at least 0.
    """
    unpacked = dict(tensors)
    for name, codes in tensors.items():
        if codes.dtype == torch.int8:
            scale_N = unpacked.pop(name.removesuffix(_WEIGHT) + _SCALE, None)
            if scale_N is None or scale_N.shape != codes.shape[:1] or not scale_N.is_floating_point():
                raise ValueError(f"{name} is in 8 bits and has no scale for each of its output channels.")
            if bool((scale_N < 0).any()):
                raise ValueError(f"{name} is in 8 bits and has a negative scale.")
            unpacked[name] = codes * _by_channel(scale_N, codes)
    return unpacked


def _by_channel(scale_N: Tensor, weight: Tensor) -> Tensor:
    return scale_N.view(-1, *[1] * (weight.dim() - 1))
