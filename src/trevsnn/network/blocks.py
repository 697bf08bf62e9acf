"""The spiking ConvNeXt block, the fusion of neighbouring levels, and one level's transform F[l,t]."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor, nn

from trevsnn.network.norm import BatchNorm
from trevsnn.network.spike import spike

EXPANSION = 4
SMALLEST_ALPHA = 1e-3

T = TypeVar("T")


class PointwiseDepthwise(nn.Module):
    """``DW2(PW2(hidden))``: the half of a block that the second block of a level shares with all timesteps."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.pw2 = ScaledStdConv2d(EXPANSION * channels, channels, 1)
        self.dw2 = _depthwise(channels, kernel_size)

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

    def convolve(self, state: Tensor) -> Tensor:
        """``conv(s(c))``, (B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride))."""
        return self.conv(spike(state))

    def forward(self, state: Tensor) -> Tensor:
        """``BN(conv(s(c)))``, of the same shape."""
        return self.bn(self.convolve(state))


class LevelStep(nn.Module):
    """One level's transform at one timestep, ``F[l,t](below, above) = Block2(Block1(v))``, without the shared half.

    ``v`` is the sum of what comes from below and, from t = 1 on, from above. With
    ``Block(v) = v + gamma * DW2(PW2(s(PW1(DW1(s(v))))))``, the first block owns all its weights and its gamma, the
    second shares PW2 and DW2 with all timesteps of the level and has no gamma (architecture of Hu et al., ICML 2024).

    Args:
        channels: C of this level.
        kernel_size: of the depthwise convolutions, odd.
        below: module from the lower level's state, or from the network's input, to (B, C, H, W).
        above: module from the upper level's earlier state to (B, C, h, w); None at the top level and at t = 0.
        further: likewise from the levels above that one, lowest first.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        below: nn.Module,
        above: nn.Module | None,
        further: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.below = below
        self.above = above
        self.further = nn.ModuleList(further)
        self.expand1 = Expand(channels, kernel_size)
        self.project1 = PointwiseDepthwise(channels, kernel_size)
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.expand2 = Expand(channels, kernel_size)

    def forward(self, below: Tensor, above: Sequence[Tensor | None], shared: PointwiseDepthwise) -> Tensor:
        """F[l,t](below, above), (B, C, H, W); ``shared`` is the level's PW2 and DW2."""
        return self.blocks(
            fuse(self.below(below), *(link(state) for link, state in self.links_from_above(above))), shared
        )

    def links_from_above(self, above: Sequence[T | None]) -> list[tuple[nn.Module, T]]:
        """Each link from above with the state, or what else belongs to it, that it is given."""
        return linked((self.above, *self.further), above)

    def blocks(self, potential: Tensor, shared: PointwiseDepthwise) -> Tensor:
        """``Block2(Block1(v))``, (B, C, H, W) -> (B, C, H, W)."""
        potential = potential + self.gamma * self.project1(self.expand1(potential))
        return potential + shared(self.expand2(potential))


def linked(links: Iterable[nn.Module | None], states: Iterable[T | None]) -> list[tuple[nn.Module, T]]:
    """Links with what each is given, where there are both."""
    pairs = zip(links, states, strict=False)  # at t = 0 there is nothing above, nor a link
    return [(link, state) for link, state in pairs if link is not None and state is not None]


def fuse(from_below: Tensor, *from_above: Tensor) -> Tensor:
    """``v``, the sum of maps, the upper ones brought to the lower one's H x W by nearest-neighbour upsampling."""
    total, size = from_below, from_below.shape[2:]
    for maps in from_above:
        total = total + (maps if maps.shape[2:] == size else _upsample(maps, size))
    return total


def _upsample(maps: Tensor, size: torch.Size) -> Tensor:
    """Nearest-neighbour upsampling, which copies and rounds nothing. CUDA's autocast would give float32."""
    device = maps.device.type
    if not torch.is_autocast_enabled(device):
        return nn.functional.interpolate(maps, size=size, mode="nearest")
    with torch.autocast(device, enabled=False):
        return nn.functional.interpolate(maps, size=size, mode="nearest")


class Level(nn.Module):
    """All timesteps of one level: a :class:`LevelStep` each, the alphas, and the half-block they share.

    ``alphas[t - 1]`` multiplies the state before timestep t; there is none for t = 0, nor any where alpha is not learned.
    """

    def __init__(self, steps: list[LevelStep], channels: int, kernel_size: int, *, learned_alpha: bool = True) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.shared = PointwiseDepthwise(channels, kernel_size)
        learned = steps[1:] if learned_alpha else []
        self.alphas = nn.ParameterList(nn.Parameter(torch.full((1, channels, 1, 1), 0.5)) for _ in learned)

    def alpha(self, t: int) -> Tensor | None:
        """alpha[l,t] of t >= 1, (1, C, 1, 1), as the recurrence multiplies by it (:func:`bounded_alpha`); None where it is 1."""
        return bounded_alpha(self.alphas[t - 1]) if len(self.alphas) else None


class _Bounded(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(alpha: Tensor) -> Tensor:
        # A clamp gives each number its bits or the bound, and keeps NaN.
        return torch.where(alpha < 0, alpha.clamp(max=-SMALLEST_ALPHA), alpha.clamp(min=SMALLEST_ALPHA))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        """That of the identity."""
        return grad_outputs[0]


def bounded_alpha(alpha: Tensor) -> Tensor:
    """``alpha`` where ``|alpha| >= 1e-3``, else 1e-3 with the sign of alpha (that of 0 is +): the recurrence stays reversible.

    The gradient is that of the identity, so that an alpha within the bounds can leave them. NaN stays NaN.
    """
    return _Bounded.apply(alpha)  # type: ignore[no-any-return]


def _depthwise(channels: int, kernel_size: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
