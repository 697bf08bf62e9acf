"""Classification heads and the losses over them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor, nn

from trevsnn.network.encoders import AnnealedLeakyReLU
from trevsnn.network.spike import spike


class AuxiliaryHead(nn.Module):
    """A head of deep supervision: average pool of the float state, then a weight-standardised linear map."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = _classifier(channels, num_classes)

    def pool(self, state: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C). Autograd keeps nothing of the state for it."""
        return state.mean((2, 3))

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, C) -> (B, K)."""
        return self.classifier(pooled[:, :, None, None]).flatten(1)


class LastHead(nn.Module):
    """The head after the last step: spikes of the state, average pool, and two linear maps around a leaky ReLU.

    Args:
        divisor: of the state before the threshold: 1 for images, T for events.
    """

    def __init__(self, channels: int, num_classes: int, divisor: int = 1) -> None:
        super().__init__()
        self.divisor = divisor
        self.classifier1 = _classifier(channels, num_classes)
        self.activation = AnnealedLeakyReLU()
        self.classifier2 = ScaledStdConv2d(num_classes, num_classes, 1)

    def pool(self, state: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C), the firing rate of each channel."""
        return spike(state / self.divisor if self.divisor != 1 else state).mean((2, 3))

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, C) -> (B, K)."""
        hidden = self.activation(self.classifier1(pooled[:, :, None, None]))
        return self.classifier2(hidden).flatten(1)


def _classifier(channels: int, num_classes: int) -> ScaledStdConv2d:
    """A weight-standardised linear map whose gains begin at 8: at 1, the mean rates it is given, which differ by a tenth
    from picture to picture, make logits so small that the first epochs do little but raise the gains."""
    classifier = ScaledStdConv2d(channels, num_classes, 1)
    nn.init.constant_(classifier.gain, 8.0)
    return classifier


def deep_supervision_loss(heads: Sequence[Tensor], target: Tensor, label_smoothing: float = 0.1) -> Tensor:
    """``sum over i = 1..n of (i / n) * CE(head_i) + CE(head_n)``: later heads weigh more, the last one counts twice.

    Args:
        heads: logits (B, K) of every head in the order of time (four for images: weights 1/4, 2/4, 3/4, 1 + 1). A
            single head counts once, as plain cross entropy.
        target: class indices (B,), int64, or probabilities (B, K).
        label_smoothing: of the cross entropies, in [0, 1].

    Returns:
        A scalar.
    """
    losses = [nn.functional.cross_entropy(h, target, label_smoothing=label_smoothing) for h in heads]
    if len(losses) == 1:
        return losses[0]
    weighted = [loss * ((i + 1) / len(losses)) for i, loss in enumerate(losses)]
    return torch.stack([*weighted, losses[-1]]).sum()


def temporal_loss(
    logits_TBK: Tensor, target: Tensor, label_smoothing: float = 0.0, regulariser: float = 1e-3
) -> Tensor:
    """Temporal efficient training: the mean over TIME of the cross entropy, plus a small pull of the logits to 1.

    ``(1 - r) * mean_t CE(logits[t], y) + r * mean((logits - 1)^2)`` (Deng et al., "Temporal Efficient Training of
    Spiking Neural Network via Gradient Re-weighting", ICLR 2022, eq. 9-11, with their threshold V_th = 1).

    Args:
        logits_TBK: logits after every timestep, time first.
        target: class indices (B,), int64, or probabilities (B, K).
        label_smoothing: of the cross entropy, in [0, 1].
        regulariser: r, in [0, 1].

    Returns:
        A scalar.
    """
    losses = [nn.functional.cross_entropy(step, target, label_smoothing=label_smoothing) for step in logits_TBK]
    return (1 - regulariser) * torch.stack(losses).mean() + regulariser * (logits_TBK - 1).square().mean()
