"""An ONNX graph, in float32 or in 8-bit arithmetic, while it is built, operator by operator.

It knows the operators and their arithmetic; :mod:`trevsnn.deploy.onnx.network` knows the network.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trevsnn.deploy.extras import require
from trevsnn.deploy.onnx.roles import Role, write_role
from trevsnn.deploy.upsampling import nearest
from trevsnn.network.encoders import AnnealedLeakyReLU
from trevsnn.network.spike import THRESHOLD

MAX_CODE = 127  # of 7 bits, and of 8 bits on either side of zero
ZERO = 128  # zero point of maps of 8 bits: the code that stands for 0
Size = tuple[int, int] | int  #: H, W; or n for ceil(H / n), ceil(W / n) of an input of any H x W


@dataclass(frozen=True)
class Map:
    """A tensor of the graph, (B, C, H, W), float32 or codes in uint8.

    Attributes:
        graph: that it belongs to.
        name: in the graph.
        size: of it.
        loop: of the node that makes it (:mod:`trevsnn.deploy.onnx.roles`).
    """

    graph: Graph
    name: str
    size: Size
    loop: str = ""

    def __add__(self, transform: Map) -> Map:
        """``c[l,t] = c[l,t-1] + F[l,t]``, of what stands for c[l,t-1], in the loop that ends with F."""
        graph, loop = transform.graph, transform.loop
        return graph.add("Add", transform.size, self.name, transform.name, role="state", loop=loop)


@dataclass(frozen=True)
class Alpha:
    """alpha[l,t], (1, C, 1, 1), by which the recurrence multiplies the state before."""

    values: Tensor

    @classmethod
    def of(cls, alpha: Tensor | None) -> Alpha | None:
        """That of a folded level; None for 1."""
        return None if alpha is None else cls(alpha)

    def __mul__(self, state: Map) -> Decayed:
        return Decayed(self.values, state)


@dataclass(frozen=True)
class Decayed:
    """``alpha[l,t] * c[l,t-1]``, which is computed together with what is added to it."""

    alpha: Tensor
    state: Map

    def __add__(self, transform: Map) -> Map:
        """``c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t]``, in the loop that ends with F."""
        graph, loop = transform.graph, transform.loop
        decayed = graph.add(
            "Mul", transform.size, self.state.name, graph.parameter(self.alpha), role="decay", loop=loop
        )
        return decayed + transform


@dataclass
class Graph:
    """Nodes and constants in the order they are made in.

    Attributes:
        roles: nodes have a role written into them.
        names: of constants that are a module's tensors, by the tensor.
        once: names of what is made once for all that need it, by what it is made of.
    """

    roles: bool = False
    names: dict[Tensor, str] = field(default_factory=dict)
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    once: dict[Any, str] = field(default_factory=dict)

    def constant(self, values: Any, name: str | None = None) -> str:
        """The name of a new constant."""
        name = name or f"constant{len(self.constants)}"
        self.constants.append(require("onnx").numpy_helper.from_array(np.asarray(values), name))
        return name

    def parameter(self, tensor: Tensor) -> str:
        """The constant of a module's tensor, one for all timesteps that share it."""
        if tensor not in self.once:
            self.once[tensor] = self.constant(tensor.numpy(), self.names.get(tensor))
        return self.once[tensor]

    def add(
        self, operator: str, size: Size, *inputs: str, role: Role = "plain", loop: str = "", **attributes: Any
    ) -> Map:
        """The output of a new node.

        Args:
            operator: of ONNX.
            size: of the output.
            inputs: names of maps and constants.
            role: of the node.
            loop: that it belongs to; empty for a loop of its own.
            attributes: of the operator.
        """
        name = f"{operator}{len(self.nodes)}"
        node = require("onnx").helper.make_node(operator, list(inputs), [name], **attributes)
        if self.roles:
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
        """``s(v / divisor) = 1 if v >= threshold * divisor else 0``, float32. That of NaN is 0."""
        threshold = self.constant(np.float32(THRESHOLD * divisor))
        fires = self.add("GreaterOrEqual", potential.size, potential.name, threshold)
        return self.cast(fires)

    def cast(self, x: Map) -> Map:
        """In float32."""
        return self.add("Cast", x.size, x.name, to=require("onnx").TensorProto.FLOAT)

    def spike_codes(self, potential: Map, divisor: int = 1) -> Map:
        """The same in uint8.

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
        inputs = [self.parameter(tensor) for tensor in (module.weight, module.bias) if tensor is not None]
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

    def upsampled_codes(self, codes: Map, size: tuple[int, int]) -> Map:
        """Nearest-neighbour upsampling to H x W: every pixel is repeated, and the last rows and columns are cropped.

        Where PyTorch repeats pixels otherwise, as to 9 from 3, which is 9 halved twice and rounded up, a Gather along each
        axis takes them.
        """
        assert isinstance(codes.size, tuple)
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

    def upsampled(self, x: Map, like: Map) -> Map:
        """Nearest-neighbour upsampling to another map's size, whatever both are: the pixels that PyTorch takes.

        Resize of ONNX divides where PyTorch multiplies, and so may take another pixel at sizes such as 21 from 6.
        """
        rows, columns = (self.sources(x, like, axis) for axis in (2, 3))
        # Columns, which are copied pixel by pixel, first: of fewer rows.
        return self.add("Gather", like.size, self.add("Gather", x.size, x.name, columns, axis=3).name, rows, axis=2)

    def sources(self, x: Map, like: Map, axis: int) -> str:
        """Which pixel of an axis each one is taken from, int64, as :func:`trevsnn.deploy.upsampling.nearest` computes it."""
        key = ("sources", x.size, like.size, axis)
        if key not in self.once:
            zero, one = self.constant(np.float32(0)), self.constant(np.float32(1))
            before, after = self.side(x, axis), self.side(like, axis)
            places = self.add("Range", 0, zero, after, one).name
            exact = self.add("Mul", 0, places, self.add("Div", 0, before, after).name).name
            limited = self.add("Min", 0, exact, self.add("Sub", 0, before, one).name).name
            # Cast cuts off what is behind the point, which is the floor.
            self.once[key] = self.add("Cast", 0, limited, to=require("onnx").TensorProto.INT64).name
        return self.once[key]

    def side(self, x: Map, axis: int) -> str:
        """How many pixels a map has along an axis, float32."""
        key = ("side", x.size, axis)
        if key not in self.once:
            shape = self.cast(self.add("Shape", 0, x.name)).name
            self.once[key] = self.add("Gather", 0, shape, self.constant(np.int64(axis)), axis=0).name
        return self.once[key]

    def plain(self, module: nn.Module, x: Map) -> Map:
        """A chain of convolutions, linear maps and leaky ReLUs in float32."""
        for part in module if isinstance(module, nn.Sequential) else [module]:
            if isinstance(part, nn.Conv2d):
                x = self.conv(part, x)
            elif isinstance(part, nn.Linear):
                x = self.add("Gemm", x.size, x.name, *map(self.parameter, (part.weight, part.bias)), transB=1)
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


def _output_size(module: nn.Conv2d, size: Size) -> Size:
    """``floor((n + 2 padding - kernel) / stride) + 1`` for height and width, ``ceil(n / stride)`` of odd kernels."""
    if isinstance(size, int):
        assert all(k == 2 * int(p) + 1 for k, p in zip(module.kernel_size, module.padding, strict=True))
        return size * module.stride[0]
    height, width = (
        (n + 2 * int(padding) - kernel) // stride + 1
        for n, padding, kernel, stride in zip(size, module.padding, module.kernel_size, module.stride, strict=True)
    )
    return height, width
