"""A convolution without autograd against autograd's."""

import pytest
import torch
from torch import nn

from trevsnn.network.lean.conv import LeanConv


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kernel", "groups"), [(1, 1), (3, 6), (5, 6), (7, 6)])
def test_gradients_of_16_bit_convolutions_are_those_of_autograd(dtype, kernel, groups):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=groups).to(dtype)
    x = torch.randn(3, 6, 9, 7).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn(3, 6, 9, 7).to(dtype)
    conv(x).backward(grad)
    with torch.no_grad():
        lean = LeanConv(conv, dtype)
        grad_x = lean.backward(grad.contiguous(memory_format=torch.channels_last), x)
        found = dict(lean.gradients())
    tolerance = 4 * torch.finfo(dtype).eps
    for ours, reference in (
        (grad_x, x.grad),
        (found[conv.weight], conv.weight.grad),
        (found[conv.bias], conv.bias.grad),
    ):
        assert (ours - reference).norm() <= tolerance * reference.norm()
