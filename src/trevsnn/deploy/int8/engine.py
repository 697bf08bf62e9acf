"""The 8-bit network on a CPU with work only where spikes are: weight rows of the inputs that fire are added up.

It runs the ONNX file of :mod:`trevsnn.deploy.onnx.int8` operator by operator, in the same integers as ONNX Runtime, which is
what to fall back on. Compiled by Numba, of the optional extra ``deploy``; without it dense, with the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv2d, linear

from trevsnn.deploy.extras import require
from trevsnn.deploy.fingerprint import MARK, check_mark
from trevsnn.deploy.int8.layers import (
    IntegerConv,
    IntegerDepthwise,
    channels_last,
    filled,
    numbers,
    quantised,
    set_threads,
    spikes_of,
)
from trevsnn.deploy.onnx.model import check_input, reading
from trevsnn.errors import RunError
from trevsnn.network.model import TRevSNN

#: Firing rate above which a convolution of spikes is computed densely (docs/results-inference.md).
CROSSOVER = 0.2


class SpikeDriven:
    """A file of :func:`trevsnn.deploy.onnx.int8.export_integer`, called like the network, on the CPU.

    Convolutions of spikes with long sums, PW2 and the links between levels, are spike-driven where they fire rarely and
    dense elsewhere, by the firing rates of the first call. DW1, a few additions for each output, and PW1 and DW2, whose
    inputs are numbers, are dense.

    Args:
        path: of the file.
        model: the network it has to be of; None takes any.
        crossover: firing rate from which on a convolution is dense.

    Raises:
        UsageError: onnx is not installed.
        RunError: the file is missing, damaged or of another network.
    """

    def __init__(self, path: Path, model: TRevSNN | None = None, crossover: float = CROSSOVER) -> None:
        onnx = require("onnx")
        with reading(path):
            file = onnx.load(path)
            onnx.checker.check_model(file)
        if model is not None:
            check_mark({p.key: p.value for p in file.metadata_props}.get(MARK), model, path)
        self.shape = [axis.dim_value for axis in file.graph.input[0].type.tensor_type.shape.dim[1:]]
        self.steps = list(_Reader(file.graph, crossover).steps())
        seen: set[str] = set()
        for step in reversed(self.steps):
            step.last_use_of = list(set(step.inputs) - seen)
            seen |= set(step.inputs)

    @property
    def rates(self) -> dict[str, float]:
        """Firing rate of the input of each convolution of spikes in the first call, by name."""
        convs = {step.output: step.run for step in self.steps if isinstance(step.run, IntegerConv)}
        return {name: conv.rate for name, conv in convs.items() if conv.rate is not None}

    @torch.no_grad()
    @torch.autocast("cpu", enabled=False)  # of which integers would come back rounded
    def __call__(self, x: Tensor) -> Tensor:
        """Pictures or frames, float32, to logits (B, K).

        Raises:
            ValueError: another shape than the file was made for, or NaN.
        """
        check_input(x, self.shape)
        set_threads()
        values: dict[str, Any] = {"input": channels_last(x.numpy(force=True))}
        for step in self.steps:
            values[step.output] = step.run(*(values[name] for name in step.inputs))
            for name in step.last_use_of:
                del values[name]
        return torch.from_numpy(values["logits"])


@dataclass
class _Step:
    """One operator or several, the names of the maps it takes and gives, and those nobody needs after it."""

    run: Callable[..., Any]
    inputs: list[str]
    output: str
    last_use_of: list[str] = field(default_factory=list)


class _Reader:
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

    def steps(self) -> Iterator[_Step]:
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

    def step(self, node: Any, run: Callable[..., Any]) -> _Step:
        inputs = [name for name in node.input if name and name not in self.constants]
        return _Step(run, inputs, self.takers[node.output[0]][0].output[0] if self.fires(node) else node.output[0])

    def spikes(self, node: Any) -> _Step | None:
        step = self.step(node, partial(spikes_of, self.threshold(node)))
        return None if all(_is_depthwise(taker) for taker in self.takers[step.output]) else step

    def threshold(self, node: Any) -> np.float32:
        """The least potential that QuantizeLinear rounds to a step or more."""
        return np.float32(np.nextafter(self.constants[node.input[1]], np.float32(np.inf)) / 2)

    def conv(self, node: Any) -> _Step:
        source = self.maker[node.input[0]]
        run = IntegerConv(
            self.values(node), _attributes(node), self.crossover, spiking=source.op_type == "Clip",
            firing=self.fires(node), picture=source.op_type == "QuantizeLinear",
        )  # fmt: skip
        return self.step(node, run)

    def depthwise(self, node: Any) -> _Step | None:
        """DW1, from potentials to codes; DW2 is taken together with its sum."""
        clip = self.made(node.input[0], "Clip")
        if clip is None:
            return None
        firing = self.maker[clip.input[0]]
        run = partial(IntegerDepthwise(self.values(node)).of_spikes, self.threshold(firing))
        return _Step(run, [firing.input[0]], node.output[0])

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

    def numbers(self, node: Any, *potential: str) -> _Step:
        """The numbers of codes, of which every pixel may stand for four, and a potential's if there is one."""
        name, times, size = node.input[0], 1, None
        if (cut := self.made(name, "Slice")) is not None:
            name, size = cut.input[0], tuple(self.constants[cut.input[2]].tolist())
        if (doubled := self.made(name, "Resize")) is not None:
            name, times = doubled.input[0], 2
        step, zero = self.values(node)
        return _Step(partial(numbers, int(zero), np.float32(step), times, size), [*potential, name], node.output[0])

    def sum(self, node: Any) -> _Step | None:
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

    def update(self, node: Any, output: str, alpha: NDArray[np.float32] | None, *previous: str) -> _Step:
        """A potential plus DW2, and alpha times the previous state if there is one."""
        conv, step = self.projection(node), self.values(self.maker[node.input[1]])[0]
        run = partial(IntegerDepthwise(self.values(conv)).added, np.float32(step), alpha)
        return _Step(run, [node.input[0], conv.input[0], *previous], output)


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
