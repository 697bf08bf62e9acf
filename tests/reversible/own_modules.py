"""A module of a user, and one level of it run as users run it, in whatever dtype is the default."""

import torch
from torch import nn

from trevsnn.reversible import run


class Of(nn.Module):
    """A function of a linear map of what is below."""

    def __init__(self, function=torch.tanh):
        super().__init__()
        self.linear, self.function = nn.Linear(4, 4), function

    def forward(self, below, above):
        return self.function(self.linear(below))


def run_of(module, *, mode="exact", timesteps=3, x=None, **options):
    device = next(iter(module.parameters())).device
    x = torch.ones(5, 4, device=device) if x is None else x
    alphas = [[torch.full((4,), 0.5, device=device)]] * timesteps
    return run([[module]] * timesteps, alphas, [x] * timesteps, backprop=mode, **options)


def loss_of(module, **options):
    return run_of(module, **options)[0][0].square().sum()


def assert_same_gradients(make, between=lambda module: None, device="cpu"):
    """In exact as in autograd mode, whatever is done to the module between the passes."""
    found = []
    for mode in ("autograd", "exact"):
        torch.manual_seed(0)
        module = make().to(device)
        parameters = list(module.parameters())
        loss = loss_of(module, mode=mode, x=torch.randn(5, 4).to(device))
        between(module)
        loss.backward()
        found.append([p.grad for p in parameters])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-12, atol=1e-14)
