"""The backward pass of a block against finite differences."""

import torch
from torch import nn

from conftest import lively
from helpers import step_and_inputs
from trevsnn.network.blocks import Expand, PointwiseDepthwise
from trevsnn.network.lean.block import LeanBlock


def test_gradcheck_of_what_lies_behind_the_last_spike(device64):
    """Numbers of finite differences, where the surrogate plays no part: PW2, DW2, gamma and the identity path."""
    torch.manual_seed(0)
    step, *_ = step_and_inputs(torch.float64, device=device64)
    potential, adjoint = torch.randn(2, 2, 5, 4, 4, dtype=torch.float64).to(device64)
    smooth = [step.gamma, *step.project1.parameters()]
    with torch.no_grad():
        block = LeanBlock(step.expand1, step.project1, step.gamma, torch.float64, 32)
        _, trace = block.forward_traced(potential)
        block.backward(adjoint, trace)
        found = dict(block.gradients())
        for parameter in smooth:
            numeric, flat = torch.empty_like(parameter), parameter.data.view(-1)
            for i in range(flat.numel()):
                flat[i] += 1e-6
                up = (
                    LeanBlock(step.expand1, step.project1, step.gamma, torch.float64, 32).forward(potential) * adjoint
                ).sum()
                flat[i] -= 2e-6
                down = (
                    LeanBlock(step.expand1, step.project1, step.gamma, torch.float64, 32).forward(potential) * adjoint
                ).sum()
                flat[i] += 1e-6
                numeric.view(-1)[i] = (up - down) / 2e-6
            assert torch.allclose(found[parameter], numeric, rtol=1e-6, atol=1e-7)


def test_what_gamma_brings_into_range_does_not_overflow_in_float16(device):
    """A block's second convolution has the sum of its gradient without gamma, which float16 may not hold."""
    torch.manual_seed(0)
    expand, project = Expand(6, 3).to(device), PointwiseDepthwise(6, 3).to(device)
    lively(expand), lively(project)
    gamma = nn.Parameter(torch.full((1, 6, 1, 1), 2.0**-10, device=device))
    potential, grad = torch.randn(4, 6, 8, 8, device=device), 3e4 * torch.randn(4, 6, 8, 8, device=device)
    assert grad.half().isinf().any()
    with torch.no_grad():
        lean = LeanBlock(expand, project, gamma, torch.float16, 4 * 64)
        _, trace = lean.forward_traced(potential)
        grad_v = lean.backward(grad, trace)
        found = dict(lean.gradients())
    leaf = potential.clone().requires_grad_()
    with torch.autocast(device.type, torch.float16):
        out = leaf + gamma * project(expand(leaf))
    parameters = [gamma, *expand.parameters(), *project.parameters()]
    expected = torch.autograd.grad(out, [leaf, *parameters], grad)
    for ours, reference in zip([grad_v, *(found[p] for p in parameters)], expected, strict=True):
        assert reference.isfinite().all()
        assert (ours - reference).norm() <= 8 * torch.finfo(torch.float16).eps * reference.norm()
