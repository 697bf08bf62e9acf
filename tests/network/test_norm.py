"""Batch normalisation against PyTorch's."""

import pytest
import torch
from torch import nn

from conftest import lively
from trevsnn.network.norm import BatchNorm


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_batch_norm_is_that_of_torch(dtype):
    torch.manual_seed(0)
    ours, theirs = BatchNorm(6), nn.BatchNorm2d(6)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for bn in (ours, theirs):
        bn.to(wide)
        lively(bn)
    theirs.load_state_dict(ours.state_dict())
    x = (3 * torch.randn(4, 6, 5, 5) + 1).to(dtype)
    grad = torch.randn(4, 6, 5, 5).to(dtype)
    results = []
    for bn in (ours, theirs):
        source = x.clone().requires_grad_()
        out = bn(source)
        out.backward(grad)
        assert out.dtype == dtype
        results.append([out.detach(), source.grad, bn.weight.grad, bn.bias.grad, *bn.buffers()])
    unit = torch.finfo(dtype).eps
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=8 * unit, atol=16 * unit)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_one_value_per_channel_cannot_be_normalised():
    with pytest.raises(
        ValueError, match=r"shape \(1, 4, 1, 1\) need more than one value per channel: use a larger batch"
    ):
        BatchNorm(4)(torch.randn(1, 4, 1, 1))
