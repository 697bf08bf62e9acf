"""A convolution without autograd against autograd's."""

import copy

import pytest
import torch
from torch import nn

from trevsnn.network.lean.conv import LeanConv


def assert_autograd_s(conv, x, grad_x, found):
    """The gradients of a convolution that went back by autograd before."""
    # CUDA's sums of up to 189 products may come in another order each time: sqrt(189) roundings, which 16 bits do not see.
    roundings = 4 if x.device.type == "cpu" or x.dtype.itemsize == 2 else 16
    tolerance = roundings * torch.finfo(x.dtype).eps
    for ours, reference in (
        (grad_x, x.grad),
        (found[conv.weight], conv.weight.grad),
        (found[conv.bias], conv.bias.grad),
    ):
        assert (ours - reference).norm() <= tolerance * reference.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kernel", "groups"), [(1, 1), (3, 6), (5, 6), (7, 6)])
def test_gradients_of_16_bit_convolutions_are_those_of_autograd(device, dtype, kernel, groups):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=groups).to(device, dtype)
    x = torch.randn(3, 6, 9, 7).to(device, dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn(3, 6, 9, 7).to(device, dtype)
    conv(x).backward(grad)
    with torch.no_grad():
        lean = LeanConv(conv, dtype)
        grad_x = lean.backward(grad.contiguous(memory_format=torch.channels_last), x)
        found = dict(lean.gradients())
    assert_autograd_s(conv, x, grad_x, found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(6, 6, 1, padding=1),
        nn.Conv2d(6, 12, 1, groups=3),
        nn.Conv2d(6, 6, 1, stride=2),
        nn.Conv2d(6, 6, 5, padding=1, groups=6),
        nn.Conv2d(6, 6, (5, 3), padding=(2, 1), groups=6),
        nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6),
        nn.Conv2d(6, 6, 4, padding=2, groups=6),
        nn.Conv2d(6, 12, 5, padding=2, groups=6),
        nn.Conv2d(6, 6, (5, 7), padding=(2, 3), groups=6),
    ],
    ids=str,
)
def test_the_short_ways_of_16_bit_numbers_are_taken_where_they_are_right(device, dtype, conv):
    torch.manual_seed(0)
    conv = copy.deepcopy(conv).to(device, dtype)
    x = torch.randn(3, 6, 9, 7).to(device, dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = conv(x)
    grad = torch.randn(out.shape).to(device, dtype).contiguous(memory_format=torch.channels_last)
    out.backward(grad)
    with torch.no_grad():
        lean = LeanConv(conv, dtype)
        assert torch.equal(lean(x), out)
        grad_x = lean.backward(grad, x)
        found = dict(lean.gradients())
    assert_autograd_s(conv, x, grad_x, found)


@pytest.mark.parametrize(("kernel", "groups", "stride"), [(1, 1, 1), (3, 6, 1), (5, 6, 1), (3, 1, 2)])
def test_a_sum_that_float16_cannot_hold_is_not_finite_and_the_others_are_right(device, kernel, groups, stride):
    """Nothing saturates or wraps: loss scaling sees every overflow."""
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, kernel, stride, padding=kernel // 2, groups=groups)
    x, size = torch.randn(3, 6, 9, 7), torch.Size((3, 6, *((n + stride - 1) // stride for n in (9, 7))))
    grad = torch.rand(size) * torch.tensor([1.0, 30, 300, 3000, 30000, 60000]).view(6, 1, 1)
    found, wide = [], []
    for results, where, dtype in ((found, device, torch.float16), (wide, torch.device("cpu"), torch.float64)):
        lean = LeanConv(conv.to(where, dtype), dtype)
        # Both have the numbers that float16 rounds to.
        own = [t.half().to(where, dtype).contiguous(memory_format=torch.channels_last) for t in (grad, x)]
        with torch.no_grad():
            results.append(lean.backward(*own).cpu().double())
            results.extend(t.detach().cpu().double() for _, t in lean.gradients())
    assert not any(sums.isfinite().all() for sums in found[1:])
    for ours, exact in zip(found, wide, strict=True):
        there = ours.isfinite()
        assert there.any()
        assert not there[exact.abs() > 65600].any()
        # A library may add up in float16: sqrt(189) roundings.
        assert ((ours - exact)[there].abs() <= 16 * torch.finfo(torch.float16).eps * exact[there].abs().max()).all()
