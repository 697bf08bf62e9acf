"""benchmarks/operators.py: each operator of a step is counted as what it is."""

import pytest
import torch
from timm.layers import ScaledStdConv2d
from torch import nn
from torch.profiler import ProfilerActivity, profile

from operators import KINDS, kind

LAYERS = {
    "dense convolutions": [
        nn.Conv2d(8, 16, 1),
        nn.Conv2d(8, 16, 7, stride=4, padding=3),
        nn.Conv2d(1, 8, 3, padding=1),
    ],
    "depthwise convolutions": [nn.Conv2d(8, 8, kernel, padding=kernel // 2, groups=8) for kernel in (3, 5, 7)],
    "normalisation": [nn.BatchNorm2d(8)],
    "the rest": [nn.ReLU()],
}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("size", [16, 3])
def test_operators_of_both_passes_are_of_the_kind_of_their_layer(size, dtype):
    if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("without AVX-512 PyTorch computes the channels of a depthwise convolution in bfloat16 one by one")
    assert tuple(LAYERS) == KINDS
    for expected, layers in LAYERS.items():
        for layer in layers:
            x = torch.randn(4, getattr(layer, "in_channels", 8), size, size, requires_grad=True)
            with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
                with torch.autocast("cpu", dtype, enabled=dtype is not None):
                    y = layer(x)
                y.backward(torch.ones_like(y))
            found = {
                kind(event.key, event.input_shapes)
                for event in profiled.key_averages(group_by_input_shape=True)
                if event.self_cpu_time_total > 0
            }
            assert found | {"the rest"} == {expected, "the rest"}, layer


def test_standardised_weights_are_normalised():
    x = torch.randn(4, 8, 16, 16)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        ScaledStdConv2d(8, 16, 1)(x).sum().backward()
    found = {kind(event.key, event.input_shapes) for event in profiled.key_averages(group_by_input_shape=True)}
    assert found == {"dense convolutions", "normalisation", "the rest"}


def test_products_of_matrices_are_dense_convolutions():
    assert kind("aten::addmm", [[16], [4, 8], [8, 16]]) == "dense convolutions"
