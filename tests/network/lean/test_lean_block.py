"""The backward pass of a block against finite differences."""

import torch

from helpers import step_and_inputs
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
