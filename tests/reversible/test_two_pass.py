"""A transform with a backward pass of its own, beside the same transform replayed under autograd."""

import pytest
import torch
from torch import nn

from trevsnn import reversible


class Linear:
    """F(below, above) = below A + above B, both passes by hand."""

    def __init__(self, width: int, device: torch.device) -> None:
        weights = (0.3 * torch.randn(width, width, dtype=torch.float64) for _ in range(2))
        self.a, self.b = (nn.Parameter(weight.to(device)) for weight in weights)
        self.second_passes = 0

    def parameters(self):
        return [self.a, self.b]

    def __call__(self, below, above):
        return below @ self.a if above is None else below @ self.a + above @ self.b

    def first_pass(self, below, above):
        with torch.no_grad():
            return self(below, above), self.second_pass

    def second_pass(self, seen, adjoint, state):
        below, above = seen
        self.second_passes += 1
        x = below.decode()
        with torch.no_grad():
            if state is not None:
                state -= self(x, None if above is None else above.decode())
            below.add(adjoint @ self.a.t())
            gradients = [(self.a, x.t() @ adjoint)]
            if above is not None:
                above.add(adjoint @ self.b.t())
                gradients.append((self.b, above.decode().t() @ adjoint))
        return gradients


class Replayed(nn.Module):
    """The same as a module."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.a, self.b, self.function = linear.a, linear.b, linear

    def forward(self, below, above):
        return below @ self.a if above is None else below @ self.a + above @ self.b


@pytest.mark.parametrize("mode", ["exact", "reversible", "autograd"])
@pytest.mark.parametrize("shared", [False, True])
def test_an_object_with_two_passes_has_the_gradients_of_a_module(device64, mode, shared):
    torch.manual_seed(0)
    one = Linear(4, device64)
    objects = [[one if shared else Linear(4, device64) for _ in range(3)] for _ in range(5)]
    alpha = torch.full((4,), 0.8, dtype=torch.float64, device=device64)
    alphas = [[nn.Parameter(alpha.clone()) for _ in range(3)] for _ in range(5)]
    x = torch.randn(6, 4, dtype=torch.float64).to(device64).requires_grad_()
    parameters = list(dict.fromkeys(p for row in objects for f in row for p in f.parameters()))
    sources = [x, *(a for row in alphas[1:] for a in row), *parameters]
    results = []
    for transforms, backprop in ((objects, mode), ([[Replayed(f) for f in row] for row in objects], "autograd")):
        states, _ = reversible.run(transforms, alphas, [x] * 5, backprop=backprop)
        loss = sum(state.square().sum() for state in states)
        results.append([loss, *torch.autograd.grad(loss, sources, allow_unused=True)])
    for ours, reference in zip(*results, strict=True):
        assert (ours is None) == (reference is None)
        assert reference is None or torch.allclose(ours, reference, rtol=1e-9, atol=1e-9)
    passes = sum(f.second_passes for f in dict.fromkeys(f for row in objects for f in row))
    assert passes == (0 if mode == "autograd" else 15)
