"""Small recurrences of modules that have nothing to do with the network, and all that a backward pass gives."""

import torch
from torch import nn

from trevsnn.network.spike import spike
from trevsnn.reversible import run


class Smooth(nn.Module):
    """A transform of float states, with batch statistics and, on demand, dropout."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.below = nn.Linear(width, width, bias=False)  # a bias before the norm would have no gradient
        self.above = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, below, above):
        value = self.norm(self.below(below))
        return self.dropout(torch.tanh(value if above is None else value + self.above(above)))


def build(kind, timesteps, levels, dtype, *, initial=False, dropout=0.0, alpha=0.6, seed=0, device="cpu"):
    torch.manual_seed(seed)
    transforms = [[kind(6, dropout).to(dtype) for _ in range(levels)] for _ in range(timesteps)]
    for row in transforms[1:]:
        row[0].below = transforms[0][0].below  # shared over time
    for module in (module for row in transforms for module in row):
        module.to(device)
    alphas = [
        [nn.Parameter((alpha + 0.1 * torch.randn(6)).to(device, dtype)) for _ in range(levels)]
        for _ in range(timesteps)
    ]
    inputs = [torch.randn(8, 6, dtype=dtype).to(device).requires_grad_()] * timesteps  # one map for all steps
    states = [torch.randn(8, 6, dtype=dtype).to(device).requires_grad_() for _ in range(levels)] if initial else None
    return transforms, alphas, inputs, states


def everything(transforms, alphas, inputs, states, **options):
    """Outputs, and gradients of inputs, states, alphas and parameters."""
    readouts = [(len(transforms) - 1, lambda c: spike(c).mean(1)), (0, lambda c: c.mean(1))]
    torch.manual_seed(1)
    last, read = run(transforms, alphas, inputs, states, readouts=readouts, **options)
    loss = sum(c.square().sum() for c in last) + sum(r.pow(3).sum() for r in read)
    parameters = dict.fromkeys(p for row in transforms for m in row for p in m.parameters())
    start = 0 if states else 1
    sources = [*dict.fromkeys(inputs), *(states or []), *(a for row in alphas[start:] for a in row), *parameters]
    grads = torch.autograd.grad(loss, sources, allow_unused=True)
    grads = [torch.zeros_like(s) if g is None else g for s, g in zip(sources, grads, strict=True)]
    return [*last, *read], grads


def assert_close(ours, reference, tolerance):
    for a, b in zip(ours, reference, strict=True):
        assert (a - b).norm() <= tolerance * b.norm().clamp_min(1e-6)
