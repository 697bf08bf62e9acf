"""A trained network's weights for a network of other classes or input channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import NamedTuple

import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor, nn

from trevsnn.network.config import CIRCUMSTANCES, TRevSNNConfig
from trevsnn.network.encoders import ImageEncoder

#: Fields of the config in which a network may differ from the one whose weights it takes.
TRANSFERABLE = ("num_classes", "in_chans")


class Transferred(NamedTuple):
    """A state dict, and what of it does not come from the trained network as it is.

    Attributes:
        tensors: of the whole new network.
        heads_are_new: whether the heads are those that the new network began with.
        adapted: whether the first convolution was adapted to other input channels.
    """

    tensors: dict[str, Tensor]
    heads_are_new: bool
    adapted: bool


def refuse_other_networks(trained: TRevSNNConfig, wanted: TRevSNNConfig) -> None:
    """Raise ValueError, naming the fields, where a network differs from the trained one in more than classes, input channels
    and circumstances."""
    theirs, ours = asdict(trained), asdict(wanted)
    free = (*TRANSFERABLE, *CIRCUMSTANCES)
    other = [f"{name} {ours[name]!r} instead of {theirs[name]!r}" for name in ours if name not in free and ours[name] != theirs[name]]  # fmt: skip
    if other:
        raise ValueError(
            f"the network has {', '.join(other)}, as the trained one has: its weights fit a network that differs in "
            "num_classes and in_chans alone."
        )


def transfer(tensors: Mapping[str, Tensor], model: nn.Module, *, same_classes: bool) -> Transferred:
    """The weights of a trained network for ``model``, which may have other classes or input channels.

    With other classes, or where the trained network has no heads, all heads are new: they keep the values that ``model`` has. With
    other input channels the first convolution is adapted by :func:`other_channels`, that of every timestep where each has its own.

    Args:
        tensors: state dict of the trained network, whose config differs in ``TRANSFERABLE`` alone.
        model: whose values the heads may keep; it is not changed.
        same_classes: whether its classes are the trained network's.
    """
    own = model.state_dict()
    headless = not any(name.startswith("heads.") for name in tensors)
    new_heads = headless or not same_classes or any(
        name in tensors and tensors[name].shape != value.shape for name, value in own.items() if name.startswith("heads.")
    )  # fmt: skip
    result = {name: value for name, value in tensors.items() if not (new_heads and name.startswith("heads."))}
    if new_heads:
        result |= {name: value for name, value in own.items() if name.startswith("heads.")}
    adapted = False
    for name, conv in first_convolutions(model).items():
        weight = result.get(f"{name}.weight")
        if weight is None or weight.shape[1] == conv.in_channels:
            continue
        result[f"{name}.weight"], result[f"{name}.gain"] = other_channels(weight, result[f"{name}.gain"], conv)
        adapted = True
    return Transferred(result, new_heads, adapted)


def first_convolutions(model: nn.Module) -> dict[str, ScaledStdConv2d]:
    """The convolutions that see the network's input, by name: the stem's, or, of events, each timestep's projection."""
    if isinstance(model.encoder, ImageEncoder):
        return {"encoder.stem.conv": model.encoder.stem.conv}
    steps = model.levels[0].steps  # type: ignore[index]
    return {f"levels.0.steps.{t}.below": step.below for t, step in enumerate(steps)}  # type: ignore[arg-type, misc, union-attr]


@torch.no_grad()
def other_channels(weight: Tensor, gain: Tensor, conv: ScaledStdConv2d) -> tuple[Tensor, Tensor]:
    """Weight and gain of a standardised convolution that sees ``conv.in_channels`` channels in place of ``weight.shape[1]``.

    What is multiplied with a pixel is the standardised weight ``W = gain (w - mean w) / sqrt(n (var w + eps))``, n being the
    inputs of an output channel. The new convolution has ``W'[c] = sum over the old channels of W / channels`` for each of its
    channels: of an input that is the same in all channels, a grey picture, it gives what the old one gave of it. W' has mean 0, as
    W has, so that there are w and gain that standardise to it.

    Args:
        weight: (N, C, k, k), the old one.
        gain: (N, 1, 1, 1), the old one.
        conv: the new one, for its number of channels and its constants; it is not changed.

    Returns:
        The new weight, (N, C', k, k), and gain, of the old one's dtype.
    """
    old, channels = weight.double(), conv.in_channels
    gamma = conv.scale * math.sqrt(conv.weight[0].numel())  # 1, unless somebody made another convolution
    var, mean = torch.var_mean(old, (1, 2, 3), correction=0, keepdim=True)
    standardised = gain.double() * gamma * (old - mean) / torch.sqrt(old[0].numel() * (var + conv.eps))
    wanted = (standardised.sum(1, keepdim=True) / channels).expand(-1, channels, -1, -1)
    spread = wanted.std((1, 2, 3), correction=0, keepdim=True)
    new = wanted / spread.clamp(min=torch.finfo(weight.dtype).tiny)
    new_gain = spread * math.sqrt(new[0].numel() * (1 + conv.eps)) / gamma
    return new.to(weight.dtype).contiguous(), new_gain.to(gain.dtype)
