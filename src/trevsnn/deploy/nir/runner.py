"""A NIR graph computed by PyTorch."""

from __future__ import annotations

import io
from graphlib import TopologicalSorter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trevsnn.deploy.extras import require


class NirModel:
    """What a .nir file of :func:`trevsnn.deploy.nir.network.nir_file` computes, called like the network.

    Args:
        content: of the file.

    Raises:
        UsageError: nir is not installed.
    """

    def __init__(self, content: bytes) -> None:
        self.graph = require("nir", "nir").read(io.BytesIO(content), type_check=False)
        self.before: dict[str, list[str]] = {name: [] for name in self.graph.nodes}
        for source, target in self.graph.edges:
            self.before[target].append(source)
        self.order = list(TopologicalSorter(self.before).static_order())

    def __call__(self, x: Tensor) -> Tensor:
        """Pictures (B, in_chans, H, W) or frames (B, T, in_chans, H, W), of the graph's dtype, to logits (B, K)."""
        values: dict[str, Tensor] = {}
        for name in self.order:
            node, terms = self.graph.nodes[name], [values[source] for source in self.before[name]]
            values[name] = _apply(node, sum(terms[1:], terms[0]) if terms else x.flatten(1, -3))
        return values["output"]


def _apply(node: Any, x: Tensor) -> Tensor:
    """One node's output."""
    kind, tensor = type(node).__name__, torch.from_numpy
    if kind == "Conv2d":
        stride, padding = tuple(map(int, node.stride)), tuple(map(int, node.padding))
        return functional.conv2d(x, tensor(node.weight), tensor(node.bias), stride, padding, groups=int(node.groups))
    if kind == "Threshold":
        return (x > tensor(node.threshold)).to(x.dtype)
    if kind == "Scale":
        return x * tensor(node.scale)
    if kind == "AvgPool2d":
        return functional.avg_pool2d(x, tuple(map(int, node.kernel_size)))
    if kind == "Affine":
        return functional.linear(x, tensor(node.weight), tensor(node.bias))
    return x.flatten(1) if kind == "Flatten" else x
