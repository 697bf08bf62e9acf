"""From pictures or event frames to the float input x[t] of the lowest level."""

from __future__ import annotations

import math

from timm.layers import ScaledStdConv2d
from torch import Tensor, nn


class AnnealedLeakyReLU(nn.Module):
    """Leaky ReLU whose negative slope is annealed from 0 to 1 in training; from 1 on it is the identity.

    ``TRevSNN.set_slope`` sets it in every layer of a network.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slope = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x if self.slope == 1.0 else nn.functional.leaky_relu(x, self.slope)

    def extra_repr(self) -> str:
        return f"slope={self.slope:g}"


class ImageStem(nn.Module):
    """Weight-standardised convolution to C_0 channels and leaky ReLU: the part of the image encoder that all timesteps share.

    Strides of stem and :func:`image_projection` by ``encoder_stride``: 4 = 2 x 2 (a 7 x 7 stem, as published, for
    224 pixels), 2 = 2 x 1 and 1 = 1 x 1 (a 3 x 3 stem, for 64 and 32 pixels).
    """

    def __init__(self, in_channels: int, channels: int, encoder_stride: int) -> None:
        super().__init__()
        kernel = 7 if encoder_stride == 4 else 3
        self.conv = ScaledStdConv2d(
            in_channels, channels, kernel, stride=1 if encoder_stride == 1 else 2, padding=kernel // 2
        )
        self.activation = AnnealedLeakyReLU()

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, C_0, H', W')."""
        return self.activation(self.conv(image))


def image_projection(channels: int, encoder_stride: int) -> ScaledStdConv2d:
    """The image encoder's second convolution, 3 x 3, C_0 -> C_0: one for all timesteps, or each its own.

    With ``encoding="grouped"`` timestep t's projection is group t of the paper's encoder of T * C_0 channels. It runs as
    part of F[0,t], so that no map of a timestep is kept for the backward pass.
    """
    return ScaledStdConv2d(channels, channels, 3, stride=2 if encoder_stride == 4 else 1, padding=1)


class ImageEncoder(nn.Module):
    """The published encoder, ``encoding="shared"``: x[t] is one map for all timesteps."""

    def __init__(self, in_channels: int, channels: int, encoder_stride: int, *, project: bool) -> None:
        super().__init__()
        self.stem = ImageStem(in_channels, channels, encoder_stride)
        self.projection = image_projection(channels, encoder_stride) if project else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, C_0, H / stride, W / stride); before the projection where timesteps own theirs."""
        return self.projection(self.stem(image))

    def stem_elements(self, height: int, width: int) -> int:
        """Elements of the stem's map, the widest one, for one image."""
        conv = self.stem.conv
        return conv.out_channels * -(-height // conv.stride[0]) * -(-width // conv.stride[1])


def event_projection(in_channels: int, channels: int, encoder_stride: int) -> nn.Module:
    """One timestep's event encoder: weight-standardised convolution 3 x 3 with bias, part of F[0,t]."""
    return ScaledStdConv2d(in_channels, channels, 3, stride=encoder_stride, padding=1)


def slope_at(epoch: int, epochs: int) -> float:
    """Negative slope in ``epoch`` of an annealing over ``epochs``: ``(1 - cos(pi e / E)) / 2``, and 1 from E on."""
    if epoch >= epochs:
        return 1.0
    return (1 - math.cos(math.pi * epoch / epochs)) / 2
