"""Losses over heads and timesteps."""

import torch

import trevsnn


def test_temporal_loss_averages_over_time():
    logits = torch.randn(3, 2, 4, dtype=torch.float64)
    target = torch.tensor([1, 2])
    expected = sum(torch.nn.functional.cross_entropy(step, target) for step in logits) / 3
    assert torch.allclose(trevsnn.temporal_loss(logits, target, regulariser=0.0), expected, rtol=1e-14)
    pulled = trevsnn.temporal_loss(logits, target, regulariser=0.25)
    assert torch.allclose(pulled, 0.75 * expected + 0.25 * (logits - 1).pow(2).mean(), rtol=1e-14)


def test_deep_supervision_weighs_the_heads():
    heads = [torch.randn(2, 4, dtype=torch.float64) for _ in range(4)]
    target = torch.tensor([1, 2])
    losses = [torch.nn.functional.cross_entropy(h, target, label_smoothing=0.1) for h in heads]
    expected = sum((i + 1) / 4 * loss for i, loss in enumerate(losses)) + losses[3]
    assert torch.allclose(trevsnn.deep_supervision_loss(heads, target), expected, rtol=1e-14)
