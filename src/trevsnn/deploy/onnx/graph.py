"""An ONNX graph in 8-bit arithmetic while it is built, operator by operator.

It knows the operators and their arithmetic; :mod:`trevsnn.deploy.onnx.int8` knows the network.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trevsnn.deploy.extras import require
from trevsnn.deploy.onnx.roles import Role, write_role
from trevsnn.deploy.upsampling import nearest
from trevsnn.network.encoders import AnnealedLeakyReLU
from trevsnn.network.spike import THRESHOLD

MAX_CODE = 127  # of 7 bits, and of 8 bits on either side of zero
ZERO = 128  # zero point of maps of 8 bits: the code that stands for 0
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Map:
    """A tensor of the graph, (B, C, H, W), float32 or codes in uint8.

    Attributes:
        graph: that it belongs to.
        name: in the graph.
        size: H, W.
        loop: of the node that makes it (:mod:`trevsnn.deploy.onnx.roles`).
    """

    graph: Graph
    name: str
    size: tuple[int, int]
    loop: str = ""

    def __add__(self, transform: Map) -> Map:
        """``c[l,t] = c[l,t-1] + F[l,t]``, of what stands for c[l,t-1], in the loop that ends with F."""
        graph, loop = transform.graph, transform.loop
        return graph.add("Add", transform.size, self.name, transform.name, role="state", loop=loop)


@dataclass(frozen=True)
class Alpha:
    """alpha[l,t], (1, C, 1, 1), by which the recurrence multiplies the state before."""

    values: Floats

    @classmethod
    def of(cls, alpha: Tensor | None) -> Alpha | None:
        """That of a folded level; None for 1."""
        return None if alpha is None else cls(alpha.numpy())

    def __mul__(self, state: Map) -> Decayed:
        return Decayed(self.values, state)


@dataclass(frozen=True)
class Decayed:
    """``alpha[l,t] * c[l,t-1]``, which is computed together with what is added to it."""

    alpha: Floats
    state: Map

    def __add__(self, transform: Map) -> Map:
        """``c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t]``, in the loop that ends with F."""
        graph, loop = transform.graph, transform.loop
        decayed = graph.add("Mul", transform.size, self.state.name, graph.constant(self.alpha), role="decay", loop=loop)
        return decayed + transform


@dataclass
class Graph:
    """Nodes and constants in the order they are made in."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, values: Any) -> str:
        """The name of a new constant."""
        name = f"constant{len(self.constants)}"
        self.constants.append(require("onnx").numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(
        self, operator: str, size: tuple[int, int], *inputs: str, role: Role = "plain", loop: str = "",
        **attributes: Any,
    ) -> Map:  # fmt: skip
        """The output of a new node.

        Args:
            operator: of ONNX.
            size: H, W of the output.
            inputs: names of maps and constants.
            role: of the node.
            loop: that it belongs to; empty for a loop of its own.
            attributes: of the operator.
        """
        name = f"{operator}{len(self.nodes)}"
        node = require("onnx").helper.make_node(operator, list(inputs), [name], **attributes)
        write_role(node, role, loop or name)
        self.nodes.append(node)
        return Map(self, name, size, loop or name)

    def quantise(self, x: Map, scale: float) -> Map:
        """``round(x / scale) + ZERO``, uint8."""
        return self.add(
            "QuantizeLinear", x.size, x.name, self.constant(np.float32(scale)), self.constant(np.uint8(ZERO)),
            role="quantise",
        )  # fmt: skip

    def spikes(self, potential: Map, divisor: int = 1) -> Map:
        """``s(v / divisor) = 1 if v >= threshold * divisor else 0``, uint8.

        It is ``min(1, round(v / scale))`` with a scale of twice the threshold: half the scale, where a code becomes 1,
        is the threshold. Of ``v / scale = 1/2`` itself ONNX would round to the even code, 0; with the next smaller
        float32 as scale it is above 1/2 and becomes 1. uint8 has no codes below 0.
        """
        scale = self.constant(np.nextafter(np.float32(2 * THRESHOLD * divisor), np.float32(0)))
        zero = self.constant(np.uint8(0))
        codes = self.add("QuantizeLinear", potential.size, potential.name, scale, zero, role="threshold")
        return self.at_most_one(codes, "spikes")

    def at_most_one(self, codes: Map, role: Role) -> Map:
        """``min(q, 1)``, uint8, in the loop of the codes."""
        low, high = self.constant(np.uint8(0)), self.constant(np.uint8(1))
        return self.add("Clip", codes.size, codes.name, low, high, role=role, loop=codes.loop)

    def dequantise(self, codes: Map, scale: float, loop: str = "") -> Map:
        """``scale * (q - ZERO)``, float32."""
        return self.add(
            "DequantizeLinear", codes.size, codes.name, self.constant(np.float32(scale)), self.constant(np.uint8(ZERO)),
            role="dequantise", loop=loop,
        )  # fmt: skip

    def added(self, potential: Map, addend: Map) -> Map:
        """``v + addend``, in the loop of the addend, which nothing else takes."""
        return self.add("Add", potential.size, potential.name, addend.name, role="add", loop=addend.loop)

    def conv(self, module: nn.Conv2d, x: Map) -> Map:
        """A convolution in float32."""
        inputs = [self.constant(module.weight.numpy())]
        if module.bias is not None:
            inputs.append(self.constant(module.bias.numpy()))
        return self.add("Conv", _output_size(module, x.size), x.name, *inputs, **_attributes(module))

    def integer_conv(
        self, module: nn.Conv2d, x: Map, y_scale: Tensor | float, weight: Tensor, bias: Tensor, *, x_zero: int,
        y_zero: int, role: Role, loop: str = "",
    ) -> Map:  # fmt: skip
        """A convolution of codes to codes, QLinearConv: ``y = round((sum (x - x_zero) * w + b) * s) + y_zero``, uint8.

        ``w``, int8, and ``b``, int32, are the weight and the bias in units of :func:`weight_scale`; ``s`` is that scale
        divided by ``y_scale``, for each output channel.

        Args:
            module: for its shape.
            x: uint8.
            y_scale: what one unit of the output's code is, for each output channel or for all.
            weight, bias: float64, (N, C, kh, kw) and (N,); the weight with the scale of x in it.
            x_zero, y_zero: zero points, the codes that stand for 0.
            role, loop: of the node.
        """
        # Sums of two products of x's 8 bits have to fit 16 bits: 7 bits are left for each weight.
        largest = MAX_CODE // 2 if x_zero == ZERO and module.groups == 1 else MAX_CODE
        # In a channel whose weights are all but zero, the bias in units of theirs would not fit 32 bits.
        scale = torch.maximum(weight_scale(weight, largest), bias.abs().view(-1, 1, 1, 1) / 2**30)
        codes = (weight / scale).round().to(torch.int8)
        scale = scale.flatten()
        one = self.constant(np.float32(1))
        return self.add(
            "QLinearConv", _output_size(module, x.size), x.name, one, self.constant(np.uint8(x_zero)),
            self.constant(codes.numpy()), self.constant((scale / y_scale).float().numpy()),
            self.constant(np.zeros(len(codes), np.int8)), one, self.constant(np.uint8(y_zero)),
            self.constant((bias / scale).round().to(torch.int32).numpy()), role=role, loop=loop, **_attributes(module),
        )  # fmt: skip

    def upsampled(self, codes: Map, size: tuple[int, int]) -> Map:
        """Nearest-neighbour upsampling to H x W: every pixel is repeated, and the last rows and columns are cropped.

        Where PyTorch repeats pixels otherwise, as to 9 from 3, which is 9 halved twice and rounded up, a Gather along each
        axis takes them.
        """
        sources = [nearest(before, after).numpy() for before, after in zip(codes.size, size, strict=True)]
        factor = max(-(-after // before) for before, after in zip(codes.size, size, strict=True))
        if not all(np.array_equal(source, np.arange(len(source)) // factor) for source in sources):
            rows, columns = map(self.constant, sources)
            codes = self.add("Gather", (size[0], codes.size[1]), codes.name, rows, axis=2)
            return replace(self.add("Gather", size, codes.name, columns, axis=3), loop="")
        scales = self.constant(np.array([1, 1, factor, factor], np.float32))
        codes = self.add(
            "Resize", (factor * codes.size[0], factor * codes.size[1]), codes.name, "", scales, role="upsample",
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        if codes.size == size:
            return codes
        begin, end, axes = (self.constant(np.array(values, np.int64)) for values in ((0, 0), size, (2, 3)))
        return self.add("Slice", size, codes.name, begin, end, axes, role="crop", loop=codes.loop)

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


def weight_scale(weight: Tensor, largest: int) -> Tensor:
    """``max |w| / largest`` for each output channel, (N, 1, 1, 1): ``w / scale`` is within -largest..largest."""
    return weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / largest


def _attributes(module: nn.Conv2d) -> dict[str, Any]:
    """Those of Conv and QLinearConv."""
    (rows, columns), (y, x) = module.padding, module.stride  # type: ignore[misc]
    return {"pads": [rows, columns, rows, columns], "strides": [y, x], "group": module.groups}


def _output_size(module: nn.Conv2d, size: tuple[int, int]) -> tuple[int, int]:
    """``floor((n + 2 padding - kernel) / stride) + 1`` for height and width."""
    height, width = (
        (n + 2 * int(padding) - kernel) // stride + 1
        for n, padding, kernel, stride in zip(size, module.padding, module.kernel_size, module.stride, strict=True)
    )
    return height, width
