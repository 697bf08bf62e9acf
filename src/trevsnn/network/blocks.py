"""The spiking ConvNeXt block, the fusion of neighbouring levels, and one level's transform F[l,t]."""

from __future__ import annotations

import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor, nn

from trevsnn.network.norm import BatchNorm
from trevsnn.network.slicing import in_slices, slices
from trevsnn.network.spike import PackedState, spike
from trevsnn.reversible.precision import Precision

EXPANSION = 4


class PointwiseDepthwise(nn.Module):
    """``DW2(PW2(hidden))``: the half of a block that the second block of a level shares with all timesteps."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.pw2 = ScaledStdConv2d(EXPANSION * channels, channels, 1)
        self.dw2 = _depthwise(channels, kernel_size)
        # Blocks begin close to the identity: larger weights add noise that has to be unlearned first.
        nn.init.trunc_normal_(self.dw2.weight, std=0.02)
        nn.init.zeros_(self.dw2.bias)  # type: ignore[arg-type]

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, 4C, H, W) spikes -> (B, C, H, W)."""
        return self.dw2(self.pw2(hidden))


class Expand(nn.Module):
    """``s(PW1(DW1(s(v))))``: the half of a block that every timestep owns."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.dw1 = _depthwise(channels, kernel_size)
        self.pw1 = ScaledStdConv2d(channels, EXPANSION * channels, 1)

    def forward(self, potential: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4C, H, W) spikes."""
        return spike(self.pw1(self.dw1(spike(potential))))


class Link(nn.Module):
    """``BN(conv(s(c)))``: what one level tells its neighbour."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
        )
        self.bn = BatchNorm(out_channels)

    def forward(self, state: Tensor, rows: list[slice]) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride)); the convolution in slices ``rows``."""
        return self.bn(in_slices(lambda part: self.conv(spike(part)), state, rows))


class LevelStep(nn.Module):
    """One level's transform at one timestep, F[l,t](below, above) = Block2(Block1(v)), without the shared half.

    ``v`` is the sum of what comes from below and, from the second step on, from above. With
    ``Block(v) = v + gamma * DW2(PW2(s(PW1(DW1(s(v))))))``, the first block owns all its weights and its gamma, the
    second shares PW2 and DW2 with all timesteps of the level and has no gamma (architecture of Hu et al., ICML 2024).

    Args:
        channels: C of this level.
        kernel_size: of the depthwise convolutions, odd.
        below: module from the lower level's state, or from the network's input, to (B, C, H, W).
        above: module from the upper level's earlier state to (B, C, h, w); None at the top level and at t = 0.
    """

    def __init__(self, channels: int, kernel_size: int, below: nn.Module, above: nn.Module | None) -> None:
        super().__init__()
        self.below = below
        self.above = above
        self.expand1 = Expand(channels, kernel_size)
        self.project1 = PointwiseDepthwise(channels, kernel_size)
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.expand2 = Expand(channels, kernel_size)

    def slices(
        self, below: Tensor | PackedState, precision: Precision, slice_bytes: int | None
    ) -> tuple[list[int], list[slice]]:
        """The size (H, W) of this level's maps, and the slices in which everything but the statistics is computed, cut
        by the size of the hidden map."""
        conv = self.below.conv if isinstance(self.below, Link) else self.below
        stride = conv.stride if isinstance(conv, nn.Conv2d) else (1, 1)
        height, width = (-(-n // s) for n, s in zip(below.shape[2:], stride, strict=True))
        hidden = self.expand1.pw1.out_channels * height * width * precision.compute_dtype(below.dtype).itemsize
        return [height, width], slices(below.shape[0], hidden, slice_bytes, precision.device)

    def forward(
        self, below: Tensor, above: Tensor | None, shared: PointwiseDepthwise, slice_bytes: int | None = None
    ) -> Tensor:
        """Return F of shape (B, C, H, W); ``above`` is brought to H x W by nearest-neighbour upsampling."""
        size, rows = self.slices(below, Precision.current(below.device), slice_bytes)
        if isinstance(self.below, Link):
            potential = self.below(below, rows)
        else:
            potential = in_slices(lambda part: self.below(fast_layout(part)), below, rows)
        if above is not None and self.above is not None:
            link = self.above(above, rows)
            if list(link.shape[2:]) != size:
                link = nn.functional.interpolate(link, size=size, mode="nearest")
            potential = potential + link
        return in_slices(lambda part: self._blocks(part, shared), potential, rows)

    def _blocks(self, potential: Tensor, shared: PointwiseDepthwise) -> Tensor:
        potential = potential + self.gamma * self.project1(self.expand1(potential))
        return potential + shared(self.expand2(potential))


class Level(nn.Module):
    """All timesteps of one level: a :class:`LevelStep` each, the alphas, and the half-block they share.

    ``alphas[t - 1]`` multiplies the state before step t; there is none for t = 0.
    """

    def __init__(self, steps: list[LevelStep], channels: int, kernel_size: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.shared = PointwiseDepthwise(channels, kernel_size)
        self.alphas = nn.ParameterList(nn.Parameter(torch.full((1, channels, 1, 1), 0.5)) for _ in steps[1:])

    def transform(self, step: int, slice_bytes: int | None) -> Transform:
        """F[l,t] as one module that holds its shared part too."""
        return Transform(self.steps[step], self.shared, slice_bytes)

    def alpha(self, step: int) -> Tensor:
        """alpha[l,t] of t >= 1, shape (1, C, 1, 1), moved out of the neighbourhood of 0 (:func:`bound_alpha_`)."""
        alpha = self.alphas[step - 1]
        bound_alpha_(alpha)
        return alpha


class Transform(nn.Module):
    """A view of a level at one timestep. It is made for a call and registered nowhere, so that every weight has one
    name in the network's state dict and is counted once by whatever walks over it."""

    def __init__(self, step: nn.Module, shared: nn.Module, slice_bytes: int | None) -> None:
        super().__init__()
        self.step = step
        self.shared = shared
        self.slice_bytes = slice_bytes

    def forward(self, below: Tensor, above: Tensor | None) -> Tensor:
        return self.step(below, above, self.shared, self.slice_bytes)


@torch.no_grad()
def bound_alpha_(alpha: nn.Parameter, smallest: float = 1e-3) -> None:
    """Move alpha, in place, to ``|alpha| >= smallest`` with its sign (that of 0 is +): the recurrence stays reversible.

    Gradients are those of the moved value, so that an alpha at the bound can leave it.
    """
    edge = torch.full_like(alpha, smallest) * torch.where(alpha < 0, -1, 1)
    # Through .data: a pass whose backward is still to come and the optimizer see no modification.
    alpha.data.copy_(torch.where(alpha.abs() >= smallest, alpha, edge))


def fast_layout(maps: Tensor) -> Tensor:
    """(B, C, H, W) in the memory layout this device is fastest in: channels-last on a CPU, the given one elsewhere."""
    return maps.contiguous(memory_format=torch.channels_last) if maps.device.type == "cpu" else maps


def _depthwise(channels: int, kernel_size: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
