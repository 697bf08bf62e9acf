"""The operators of an 8-bit ONNX file, those that one loop can compute taken together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import conv2d, linear

from trevsnn.deploy.extras import require
from trevsnn.deploy.int8.layers import (
    IntegerConv,
    IntegerDepthwise,
    channels_last,
    filled,
    numbers,
    quantised,
    spikes_of,
)
from trevsnn.errors import RunError


@dataclass
class Step:
    """One operator or several, the names of the maps it takes and gives, and those nobody needs after it."""

    run: Callable[..., Any]
    inputs: list[str]
    output: str
    last_use_of: list[str] = field(default_factory=list)


class Reader:
    """The operators of a file's graph, those that one loop can compute taken together:

    - what makes spikes, with DW1 that takes them;
    - Clip, which makes spikes of codes, with the convolution before it;
    - DequantizeLinear, and Resize and Slice before it, with the addition after it;
    - DW2 with those, and with the product alpha * c[l,t-1] and its addition.
    """

    def __init__(self, graph: Any, crossover: float) -> None:
        self.nodes, self.crossover = list(graph.node), crossover
        to_array = require("onnx").numpy_helper.to_array
        self.constants = {tensor.name: np.array(to_array(tensor)) for tensor in graph.initializer}
        self.maker = {node.output[0]: node for node in self.nodes}
        self.takers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)

    def steps(self) -> Iterator[Step]:
        for node in self.nodes:
            match node.op_type:
                case "QLinearConv":
                    step = self.depthwise(node) if _is_depthwise(node) else self.conv(node)
                case "QuantizeLinear" if self.fires(node):
                    step = self.spikes(node)
                case "DequantizeLinear":
                    step = None if self.is_added(node) else self.numbers(node)
                case "Add":
                    step = self.sum(node)
                case "Mul" if any(self.is_recurrence(taker) for taker in self.takers[node.output[0]]):
                    step = None
                case "Clip" | "Resize" | "Slice":
                    step = None
                case _:
                    step = self.step(node, _plain(node, self.values(node)))
            if step is not None:
                yield step

    def made(self, name: str, operator: str) -> Any:
        """The node that makes a map, if it is of that operator."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type == operator else None

    def values(self, node: Any) -> list[NDArray[Any]]:
        return [self.constants[name] for name in node.input if name in self.constants]

    def fires(self, node: Any) -> bool:
        """Whether Clip makes spikes of what a node gives."""
        return [taker.op_type for taker in self.takers.get(node.output[0], [])] == ["Clip"]

    def step(self, node: Any, run: Callable[..., Any]) -> Step:
        inputs = [name for name in node.input if name and name not in self.constants]
        return Step(run, inputs, self.takers[node.output[0]][0].output[0] if self.fires(node) else node.output[0])

    def spikes(self, node: Any) -> Step | None:
        step = self.step(node, partial(spikes_of, self.threshold(node)))
        return None if all(_is_depthwise(taker) for taker in self.takers[step.output]) else step

    def threshold(self, node: Any) -> np.float32:
        """The least potential that QuantizeLinear rounds to a step or more."""
        return np.float32(np.nextafter(self.constants[node.input[1]], np.float32(np.inf)) / 2)

    def conv(self, node: Any) -> Step:
        source = self.maker[node.input[0]]
        run = IntegerConv(
            self.values(node), _attributes(node), self.crossover, spiking=source.op_type == "Clip",
            firing=self.fires(node), picture=source.op_type == "QuantizeLinear",
        )  # fmt: skip
        return self.step(node, run)

    def depthwise(self, node: Any) -> Step | None:
        """DW1, from potentials to codes; DW2 is taken together with its sum."""
        clip = self.made(node.input[0], "Clip")
        if clip is None:
            return None
        firing = self.maker[clip.input[0]]
        run = partial(IntegerDepthwise(self.values(node)).of_spikes, self.threshold(firing))
        return Step(run, [firing.input[0]], node.output[0])

    def projection(self, node: Any) -> Any:
        """DW2, whose numbers an addition adds to a potential; None for another addition."""
        codes = self.made(node.input[1], "DequantizeLinear") if node.op_type == "Add" else None
        conv = None if codes is None else self.maker[codes.input[0]]
        return conv if conv is not None and _is_depthwise(conv) else None

    def is_recurrence(self, node: Any) -> bool:
        """Whether an addition is that of ``alpha * c[l,t-1]`` and a sum with DW2."""
        if node.op_type != "Add" or self.made(node.input[0], "Mul") is None:
            return False
        inner = self.made(node.input[1], "Add")
        return inner is not None and len(self.takers[node.input[1]]) == 1 and self.projection(inner) is not None

    def is_added(self, node: Any) -> bool:
        """Whether the numbers of DequantizeLinear are only added to a potential."""
        takers = self.takers[node.output[0]]
        return len(takers) == 1 and takers[0].op_type == "Add" and takers[0].input[1] == node.output[0]

    def numbers(self, node: Any, *potential: str) -> Step:
        """The numbers of codes, of which every pixel may stand for four, and a potential's if there is one."""
        name, times, size = node.input[0], 1, None
        if (cut := self.made(name, "Slice")) is not None:
            name, size = cut.input[0], tuple(self.constants[cut.input[2]].tolist())
        if (doubled := self.made(name, "Resize")) is not None:
            name, times = doubled.input[0], 2
        step, zero = self.values(node)
        return Step(partial(numbers, int(zero), np.float32(step), times, size), [*potential, name], node.output[0])

    def sum(self, node: Any) -> Step | None:
        if self.is_recurrence(node):
            product, inner = self.maker[node.input[0]], self.maker[node.input[1]]
            alpha = filled(self.constants[product.input[1]].reshape(-1))
            return self.update(inner, node.output[0], alpha, product.input[0])
        if self.projection(node) is not None:
            taken = any(self.is_recurrence(taker) for taker in self.takers[node.output[0]])
            return None if taken else self.update(node, node.output[0], None)
        codes = self.made(node.input[1], "DequantizeLinear")
        if codes is not None and self.is_added(codes):
            return replace(self.numbers(codes, node.input[0]), output=node.output[0])
        return self.step(node, np.add)

    def update(self, node: Any, output: str, alpha: NDArray[np.float32] | None, *previous: str) -> Step:
        """A potential plus DW2, and alpha times the previous state if there is one."""
        conv, step = self.projection(node), self.values(self.maker[node.input[1]])[0]
        run = partial(IntegerDepthwise(self.values(conv)).added, np.float32(step), alpha)
        return Step(run, [node.input[0], conv.input[0], *previous], output)


def _attributes(node: Any) -> dict[str, Any]:
    return {a.name: require("onnx").helper.get_attribute_value(a) for a in node.attribute}


def _is_depthwise(node: Any) -> bool:
    return node.op_type == "QLinearConv" and _attributes(node)["group"] > 1


def _plain(node: Any, constants: list[NDArray[Any]]) -> Callable[..., NDArray[Any]]:
    """What an operator does with maps (B, H, W, C) by itself, given its constants."""
    attributes = _attributes(node)
    match node.op_type:
        case "QuantizeLinear":
            step, zero = constants
            return partial(quantised, np.float32(step), int(zero))
        case "Gather":
            return lambda frames: np.ascontiguousarray(frames[:, int(constants[0])])
        case "Conv":
            weight, *biases = (torch.from_numpy(filled(values, axis=0)) for values in constants)
            bias, stride, padding = next(iter(biases), None), attributes["strides"], attributes["pads"][:2]

            def convolve(x: NDArray[np.float32]) -> NDArray[np.float32]:
                maps = torch.from_numpy(x[..., : weight.shape[1]]).movedim(-1, 1)
                return channels_last(conv2d(maps, weight, bias, stride, padding).numpy())

            return convolve
        case "LeakyRelu":
            return lambda x: np.where(x < 0, np.float32(attributes["alpha"]) * x, x)
        case "Gemm":
            weight, bias = map(torch.from_numpy, constants)
            return lambda x: linear(torch.from_numpy(x[:, : weight.shape[1]]), weight, bias).numpy()
        case "Mul":
            return lambda state: state * filled(constants[0].reshape(-1))
        case "Cast":
            return lambda spikes: spikes.astype(np.float32)
        case "ReduceMean":
            return lambda spikes: spikes.mean((1, 2))
        case "Identity":
            return lambda x: x
    raise RunError(f"the ONNX file holds an operator {node.op_type}, which the spike-driven engine does not have.")
