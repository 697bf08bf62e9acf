"""Classification heads: from the top level's state to logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TypeGuard

import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor, nn

from trevsnn.network.encoders import AnnealedLeakyReLU
from trevsnn.network.spike import spike


class AuxiliaryHead(nn.Module):
    """A head of deep supervision: average pool of the float state, then a weight-standardised linear map."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = ScaledStdConv2d(channels, num_classes, 1)

    def pool(self, state: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C). Autograd keeps nothing of the state for it."""
        return state.mean((2, 3))

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, C) -> (B, K)."""
        return self.classifier(pooled[:, :, None, None]).flatten(1)


class RatesHead(nn.Module):
    """The head of a network without classes: spikes of the state and average pool, which the last head begins with, too.

    Args:
        divisor: of the state before the threshold: T for the last state of an event network, else 1.
    """

    def __init__(self, divisor: int = 1) -> None:
        super().__init__()
        self.divisor = divisor

    def pool(self, state: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C), the firing rate of each channel."""
        return self.pool_spikes(spike(state / self.divisor if self.divisor != 1 else state))

    def pool_spikes(self, spikes: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C), of the spikes themselves. Autograd keeps nothing of them for it."""
        return spikes.mean((2, 3))

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, C), as they are."""
        return pooled


class LastHead(RatesHead):
    """The head after the last timestep, or after every one: spikes of the state, average pool, and two linear maps around a
    leaky ReLU.

    Args:
        divisor: as in :class:`RatesHead`.
    """

    def __init__(self, channels: int, num_classes: int, divisor: int = 1) -> None:
        super().__init__(divisor)
        self.classifier1 = ScaledStdConv2d(channels, num_classes, 1)
        self.activation = AnnealedLeakyReLU()
        self.classifier2 = ScaledStdConv2d(num_classes, num_classes, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, C) -> (B, K)."""
        hidden = self.activation(self.classifier1(pooled[:, :, None, None]))
        return self.classifier2(hidden).flatten(1)


def reads_plain_spikes(head: nn.Module) -> TypeGuard[RatesHead]:
    """Whether a head looks at s(c) alone, so that a code of the state is all that it needs for its gradient."""
    return (type(head) is LastHead or type(head) is RatesHead) and head.divisor == 1


def mean_over_time(values: Sequence[Tensor]) -> Tensor:
    """Mean of tensors of one shape. They are added in the order of time, so that a stream comes to the same, bit for bit."""
    return reduce(torch.add, values) / len(values) if len(values) > 1 else values[0]


def pool_of(head: nn.Module) -> Callable[[Tensor], Tensor]:
    """What a head is given of a state: what its ``pool`` makes of it, or, of a head without one, the state itself."""
    return getattr(head, "pool", itself)


def itself(state: Tensor) -> Tensor:
    """The state, read as it is."""
    return state
