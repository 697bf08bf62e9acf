"""A NIR graph while it is built: sums, spikes, convolutions and upsampling. :mod:`.network` knows the network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from trevsnn.deploy.extras import require
from trevsnn.deploy.upsampling import nearest
from trevsnn.network.spike import THRESHOLD

Shape = tuple[int, ...]
Array = NDArray[Any]


@dataclass(frozen=True)
class Value:
    """A map of the graph.

    Attributes:
        graph: that it belongs to.
        name: begins the names of what is made of it.
        terms: names of the one or two nodes whose sum it is.
        shape: (C, H, W), or (C,).
    """

    graph: Graph
    name: str
    terms: tuple[str, ...]
    shape: Shape

    def __add__(self, transform: Value) -> Value:
        """``c[l,t] = c[l,t-1] + F[l,t]``, of what stands for c[l,t-1]."""
        return self.plus(transform, transform.name.replace("transform", "state"))

    def plus(self, other: Value, name: str) -> Value:
        """The sum, in which both are rounded to one number before they are added."""
        return Value(self.graph, name, (self.node, other.node), self.shape)

    @property
    def node(self) -> str:
        """The node that has this value: of a sum a Scale by 1."""
        if len(self.terms) == 1:
            return self.terms[0]
        name = f"{self.name}_sum"
        if name not in self.graph.nodes:
            self.graph.add(name, self.graph.filled("Scale", 1, self.shape), self, self.shape)
        return name

    def spikes(self, divisor: int = 1) -> Value:
        """``s(v / divisor)``, made once for all that read it. The quotient of a float reaches the threshold where the
        float reaches the threshold times the divisor."""
        name = f"{self.name}_spikes" if divisor == 1 else f"{self.name}_spikes_of_mean"
        if name in self.graph.nodes:
            return Value(self.graph, name, (name,), self.shape)
        dtype = self.graph.dtype
        below = np.nextafter(dtype.type(THRESHOLD * divisor), dtype.type(0))
        return self.graph.add(name, self.graph.filled("Threshold", below, self.shape), self, self.shape)


@dataclass(frozen=True)
class Alpha:
    """alpha[l,t], (1, C, 1, 1), by which the recurrence multiplies the state before, and the name of the product."""

    values: Array
    name: str

    def __mul__(self, state: Value) -> Value:
        scale = np.broadcast_to(self.values[0], state.shape)
        return state.graph.add(self.name, require("nir", "nir").Scale(scale.copy()), state, state.shape)


@dataclass
class Graph:
    """Nodes and edges in the order they are made in.

    Attributes:
        dtype: of all numbers.
    """

    dtype: np.dtype[Any]
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, node: Any, x: Value | None, shape: Shape) -> Value:
        """The output of a new node."""
        assert name not in self.nodes, name
        self.nodes[name] = node
        if x is not None:
            self.edges += [(term, name) for term in x.terms]
        return Value(self, name, (name,), shape)

    def filled(self, kind: str, number: float, shape: Shape) -> Any:
        """A node of a kind with one parameter, the same everywhere."""
        return getattr(require("nir", "nir"), kind)(np.full(shape, number, self.dtype))

    def conv(self, name: str, module: nn.Conv2d, x: Value) -> Value:
        """A convolution."""
        bias = None if module.bias is None else module.bias.numpy()
        return self.convolved(name, module.weight.numpy(), x, module.stride, module.padding, module.groups, bias)  # type: ignore[arg-type]

    def convolved(
        self, name: str, weight: Array, x: Value, stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (0, 0),
        groups: int = 1, bias: Array | None = None,
    ) -> Value:  # fmt: skip
        """A convolution by a weight (C_out, C_in / groups, kh, kw); without bias it is 0."""
        size = x.shape[1:]
        pairs = zip(size, padding, weight.shape[2:], stride, strict=True)
        height, width = ((n + 2 * pad - kernel) // step + 1 for n, pad, kernel, step in pairs)
        bias = np.zeros(len(weight), self.dtype) if bias is None else bias
        node = require("nir", "nir").Conv2d(size, weight, stride, padding, (1, 1), groups, bias)
        return self.add(name, node, x, (len(weight), height, width))

    def upsampled(self, x: Value, size: Shape) -> Value:
        """Nearest-neighbour upsampling to H x W, the pixels that PyTorch takes."""
        for axis, letter in ((2, "x"), (1, "y")):
            if x.shape[axis] != size[axis - 1]:
                x = self._longer(x, axis, nearest(x.shape[axis], size[axis - 1]), f"{x.name}_{letter}")
        return x

    def _longer(self, x: Value, axis: int, source: Tensor, name: str) -> Value:
        """``y[i] = x[source[i]]`` along an axis, in every channel.

        Channel ``c n + k`` of the first convolution is pixel k of channel c. The second one's input has one pixel along the
        axis, padded to ``2 m - 1``, so that its weight at ``m - 1 - i`` is what pixel i of m is given.
        """
        channels, before, after = x.shape[0], x.shape[axis], len(source)
        split = np.zeros((channels, before, 1, before), self.dtype)
        split[:, range(before), 0, range(before)] = 1
        joined = np.zeros((channels, before, after), self.dtype)
        joined[:, source.numpy(), after - 1 - np.arange(after)] = 1
        split = split.reshape(channels * before, 1, 1, before)
        joined = joined[:, :, None]
        padding = (0, after - 1)
        if axis == 1:
            split, joined, padding = split.swapaxes(2, 3), joined.swapaxes(2, 3), (after - 1, 0)
        x = self.convolved(f"{name}_split", split.copy(), x, groups=channels)
        return self.convolved(name, joined.copy(), x, padding=padding, groups=channels)
