"""An ONNX graph in 8-bit arithmetic as it is built, operator by operator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trevsnn.deploy.extras import require
from trevsnn.network.encoders import AnnealedLeakyReLU
from trevsnn.network.spike import THRESHOLD

STEPS = 127  # of 7 bits, and of 8 on either side of zero
ZERO = 128  # stands for 0 in maps of 8 bits
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Map:
    """A tensor of the graph: float (B, C, H, W), which can be added to and scaled, or uint8."""

    graph: Graph
    name: str
    size: tuple[int, int]

    def __add__(self, other: Map) -> Map:
        return self.graph.add("Add", self.size, self.name, other.name)

    def scaled(self, factor: Floats) -> Map:
        return self.graph.add("Mul", self.size, self.name, self.graph.constant(factor))


@dataclass(frozen=True)
class Alpha:
    """alpha[l,t], which the recurrence multiplies states by."""

    values: Floats

    def __mul__(self, state: Map) -> Map:
        return state.scaled(self.values)


@dataclass
class Graph:
    """Nodes and constants as they come."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    spikes: dict[tuple[str, float], Map] = field(default_factory=dict)

    def constant(self, values: Any) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(require("onnx").numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, operator: str, size: tuple[int, int], *inputs: str, **attributes: Any) -> Map:
        name = f"{operator}{len(self.nodes)}"
        self.nodes.append(require("onnx").helper.make_node(operator, list(inputs), [name], **attributes))
        return Map(self, name, size)

    def fires(self, potential: Map, divisor: int = 1) -> Map:
        """``s(v / divisor)`` as 0 and 1, uint8: in steps of twice the threshold v rounds to 1 or more where it fires
        and to 0, below which there is nothing, elsewhere.

        The step is the next smaller number, so that the threshold itself, half a step, is rounded up.
        """
        key = potential.name, float(divisor)
        if key not in self.spikes:
            step = self.constant(np.nextafter(np.float32(2 * THRESHOLD * divisor), np.float32(0)))
            self.spikes[key] = self.at_most_one(
                self.add("QuantizeLinear", potential.size, potential.name, step, self.constant(np.uint8(0)))
            )
        return self.spikes[key]

    def at_most_one(self, codes: Map) -> Map:
        return self.add("Clip", codes.size, codes.name, self.constant(np.uint8(0)), self.constant(np.uint8(1)))

    def numbers(self, codes: Map, scale: float) -> Map:
        """8-bit maps as float ones."""
        return self.add(
            "DequantizeLinear", codes.size, codes.name, self.constant(np.float32(scale)), self.constant(np.uint8(ZERO))
        )

    def conv(self, module: nn.Conv2d, x: Map) -> Map:
        """In float32."""
        inputs = [self.constant(module.weight.numpy())]
        if module.bias is not None:
            inputs.append(self.constant(module.bias.numpy()))
        return self.add("Conv", _size(module, x.size), x.name, *inputs, **_shape(module))

    def integer_conv(
        self, module: nn.Conv2d, x: Map, step: Tensor | float, weight: Tensor, bias: Tensor, *, from_zero: int,
        to_zero: int,
    ) -> Map:  # fmt: skip
        """``weight * (x - from_zero) + bias`` in steps of ``step``, plus ``to_zero``, in uint8.

        Args:
            module: for its shape.
            x: uint8.
            step: of the output, for each channel or for all.
            weight, bias: in units of x's steps.
            from_zero, to_zero: what stands for 0 in the input and the output.
        """
        steps = STEPS // 2 if from_zero == ZERO and module.groups == 1 else STEPS
        # Of a channel whose weights are all but zero, the bias alone would run over 32 bits.
        scale = torch.maximum(weight_scale(weight, steps), bias.abs().view(-1, 1, 1, 1) / 2**30)
        codes = (weight / scale).round().to(torch.int8)
        scale = scale.flatten()
        one = self.constant(np.float32(1))
        return self.add(
            "QLinearConv", _size(module, x.size), x.name, one, self.constant(np.uint8(from_zero)),
            self.constant(codes.numpy()), self.constant((scale / step).float().numpy()),
            self.constant(np.zeros(len(codes), np.int8)), one, self.constant(np.uint8(to_zero)),
            self.constant((bias / scale).round().to(torch.int32).numpy()), **_shape(module),
        )  # fmt: skip

    def doubled(self, x: Map, size: tuple[int, int]) -> Map:
        """Every pixel four times; of an odd size the last row or column twice."""
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        x = self.add(
            "Resize", (2 * x.size[0], 2 * x.size[1]), x.name, "", scales, mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        if x.size == size:
            return x
        begin, end, axes = (self.constant(np.array(values, np.int64)) for values in ((0, 0), size, (2, 3)))
        return self.add("Slice", size, x.name, begin, end, axes)

    def plain(self, module: nn.Module, x: Map) -> Map:
        """A chain of convolutions, linear maps and leaky ReLUs in float32."""
        for part in module if isinstance(module, nn.Sequential) else [module]:
            if isinstance(part, nn.Conv2d):
                x = self.conv(part, x)
            elif isinstance(part, nn.Linear):
                weight, bias = self.constant(part.weight.numpy()), self.constant(part.bias.numpy())
                x = self.add("Gemm", x.size, x.name, weight, bias, transB=1)
            elif isinstance(part, AnnealedLeakyReLU) and part.slope != 1.0:
                x = self.add("LeakyRelu", x.size, x.name, alpha=part.slope)
        return x


def weight_scale(weight: Tensor, steps: int) -> Tensor:
    """What one step of each output channel's weight is, (C, 1, 1, 1)."""
    return weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / steps


def _shape(module: nn.Conv2d) -> dict[str, Any]:
    (rows, columns), (y, x) = module.padding, module.stride  # type: ignore[misc]
    return {"pads": [rows, columns, rows, columns], "strides": [y, x], "group": module.groups}


def _size(module: nn.Conv2d, size: tuple[int, int]) -> tuple[int, int]:
    height, width = (
        (n + 2 * int(p) - k) // s + 1
        for n, p, k, s in zip(size, module.padding, module.kernel_size, module.stride, strict=True)
    )
    return height, width
