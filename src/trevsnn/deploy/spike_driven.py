"""The 8-bit network on a CPU with work only where spikes are: weight rows of the inputs that fire are added up.

It runs the ONNX file of :mod:`trevsnn.deploy.integer` operator by operator, in the same integers as ONNX Runtime, which is
what to fall back on. Compiled by Numba, of the optional extra ``deploy``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu, linear

from trevsnn.deploy.extras import require
from trevsnn.deploy.integer_layers import IntegerConv, IntegerDepthwise, add_numbers, channels_last, fires, set_threads
from trevsnn.deploy.mark import MARK, check_mark
from trevsnn.deploy.onnx_model import check_input, reading
from trevsnn.errors import RunError
from trevsnn.model import TRevSNN

#: Firing rate above which a convolution of spikes is computed densely (docs/results-inference.md).
CROSSOVER = 0.2


class SpikeDriven:
    """A file of :func:`trevsnn.deploy.integer.export_integer`, called like the network, on the CPU.

    Convolutions of spikes with long sums, PW2 and the links between levels, are spike-driven where they fire rarely and
    dense elsewhere, by the firing rates of the first call. DW1, a few additions for each output, and PW1 and DW2, whose
    inputs are numbers, are dense.

    Args:
        path: of the file.
        model: the network it has to be of; None takes any.
        crossover: firing rate from which on a convolution is dense.

    Raises:
        UsageError: onnx or Numba are not installed.
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
        self.steps = _steps(file.graph, crossover)

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
        values: dict[str, Any] = {"input": channels_last(x)}
        for step in self.steps:
            values[step.output] = step.run(*(values[name] for name in step.inputs))
            for name in step.last_use_of:
                del values[name]
        return values["logits"]


@dataclass
class _Step:
    """One operator, the names of the maps it takes and gives, and those nobody needs after it."""

    run: Callable[..., Any]
    inputs: list[str]
    output: str
    last_use_of: list[str]


def _steps(graph: Any, crossover: float) -> list[_Step]:
    """The operators of a file. One followed by Clip, which makes spikes of its output, becomes one with it, and so do
    DequantizeLinear and the addition of its numbers."""
    to_array = require("onnx").numpy_helper.to_array
    constants = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    spikes = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "Clip"}
    uses = Counter(name for node in graph.node for name in node.input)
    added = {node.input[1] for node in graph.node if node.op_type == "Add" and uses[node.input[1]] == 1}
    numbers = {n.output[0]: n for n in graph.node if n.op_type == "DequantizeLinear" and n.output[0] in added}
    steps: list[_Step] = []
    for node in graph.node:
        if node.op_type == "Clip" or node.output[0] in numbers:
            continue
        inputs = [name for name in node.input if name and name not in constants]
        if inputs[-1] in numbers:
            codes, *code = numbers[inputs[-1]].input
            add = partial(add_numbers, *(float(constants[name]) for name in code))
            steps.append(_Step(add, [inputs[0], codes], node.output[0], []))
            continue
        output = spikes.get(node.output[0], node.output[0])
        run = _operator(
            node, [constants[name] for name in node.input if name in constants], crossover,
            spiking=inputs[0] in spikes.values(), firing=node.output[0] in spikes,
        )  # fmt: skip
        steps.append(_Step(run, inputs, output, []))
    seen = set()
    for step in reversed(steps):
        step.last_use_of = list(set(step.inputs) - seen)
        seen |= set(step.inputs)
    return steps


def _operator(
    node: Any, constants: list[NDArray[Any]], crossover: float, *, spiking: bool, firing: bool
) -> Callable[..., Any]:
    """What a node does with maps (B, H, W, C), given its constants."""
    attributes = {a.name: require("onnx").helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "QLinearConv" and attributes["group"] > 1:
        return IntegerDepthwise(constants, spiking=spiking)
    if node.op_type == "QLinearConv":
        return IntegerConv(constants, attributes, crossover, spiking=spiking, firing=firing)
    torches = [torch.from_numpy(np.array(c)) for c in constants]
    match node.op_type:
        case "QuantizeLinear" if firing:
            threshold = float(np.nextafter(constants[0], np.float32(np.inf))) / 2  # what rounds to a step or more
            return lambda potential: fires(potential, threshold)
        case "QuantizeLinear":
            step, zero = float(constants[0]), int(constants[1])
            return lambda x: ((x / step).round() + zero).clamp(0, 255).to(torch.uint8)
        case "DequantizeLinear":
            return lambda codes: (codes.float() - int(constants[1])) * torches[0]
        case "Add":
            return torch.add
        case "Mul":
            return lambda state: state * torches[0].flatten()
        case "Resize":
            return lambda x: x[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1).flatten(1, 2).flatten(2, 3)
        case "Slice":
            height, width = constants[1]
            return lambda x: x[:, :height, :width].contiguous()
        case "Gather":
            return lambda frames: frames[:, int(constants[0])]
        case "Conv":
            pads, stride = attributes["pads"], attributes["strides"]
            return lambda x: channels_last(conv2d(x.movedim(-1, 1), *torches, stride=stride, padding=pads[:2]))
        case "LeakyRelu":
            return lambda x: leaky_relu(x, attributes["alpha"])
        case "Gemm":
            return lambda x: linear(x, *torches)
        case "Cast":
            return lambda spikes: spikes.float()
        case "ReduceMean":
            return lambda spikes: spikes.mean((1, 2))
        case "Identity":
            return lambda x: x
    raise RunError(f"the ONNX file holds an operator {node.op_type}, which the spike-driven engine does not have.")
