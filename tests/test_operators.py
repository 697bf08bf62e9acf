"""benchmarks/operators.py: each operator of a step is counted as what it is."""

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from operators import KINDS, kind

LAYERS = {
    "dense convolutions": [nn.Conv2d(8, 16, 1), nn.Conv2d(8, 16, 3, stride=2, padding=1)],
    "depthwise convolutions": [nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 5, padding=2, groups=8)],
    "batch norm": [nn.BatchNorm2d(8)],
    "the rest": [nn.ReLU()],
}


def test_operators_of_both_passes_are_of_the_kind_of_their_layer():
    assert tuple(LAYERS) == KINDS
    for expected, layers in LAYERS.items():
        for layer in layers:
            x = torch.randn(4, 8, 16, 16, requires_grad=True)
            with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
                layer(x).backward(torch.ones_like(layer(x)))
            found = {
                kind(event.key, event.input_shapes)
                for event in profiled.key_averages(group_by_input_shape=True)
                if event.self_cpu_time_total > 0
            }
            assert found | {"the rest"} == {expected, "the rest"}, layer


def test_products_of_matrices_are_dense_convolutions():
    assert kind("aten::addmm", [[16], [4, 8], [8, 16]]) == "dense convolutions"
