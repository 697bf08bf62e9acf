"""Losses over the logits of several heads or timesteps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def deep_supervision_loss(heads: Sequence[Tensor], target: Tensor, label_smoothing: float = 0.1) -> Tensor:
    """``sum over i = 1..n of (i / n) * CE(head_i) + CE(head_n)``: later heads weigh more, the last one counts twice.

    Args:
        heads: logits (B, K) of every head in the order of time (four for images: weights 1/4, 2/4, 3/4, 1 + 1). A
            single head counts once, as plain cross entropy.
        target: class indices (B,), int64, or probabilities (B, K).
        label_smoothing: of the cross entropies, in [0, 1].

    Returns:
        A scalar.

    Raises:
        TypeError: the logits of one head alone.
    """
    if isinstance(heads, Tensor):
        raise TypeError("heads is one tensor; give the logits of every head, as model(x, all_heads=True) does.")
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
    losses = [
        nn.functional.cross_entropy(logits_BK, target, label_smoothing=label_smoothing) for logits_BK in logits_TBK
    ]
    return (1 - regulariser) * torch.stack(losses).mean() + regulariser * (logits_TBK - 1).square().mean()
