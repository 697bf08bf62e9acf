"""The folded network in 8-bit arithmetic, as an ONNX file of standard operators.

Every convolution of a block, a link or the encoder of pictures is a QLinearConv: 8-bit weights, one scale per output
channel, 8-bit maps, sums in 32 bits. Spikes are the integers 0 and 1 and lose nothing. What is rounded are the maps of
numbers between: DW1's output, whose range is known from its weights, the picture, and what PW2, DW2, the links and the
encoder give, whose ranges are those seen on training items. The states, to which blocks and links add, stay float32, and
so do the head and the convolution of event frames.

Two products have to fit 16 bits, where processors without VNNI instructions add them up: DW1's output takes 7 bits, and
so do the weights of the encoder, whose inputs take 8.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trevsnn.deploy.extras import require
from trevsnn.deploy.folded import FoldedLevel, FoldedStep, FoldedTRevSNN
from trevsnn.deploy.mark import MARK
from trevsnn.encoders import AnnealedLeakyReLU
from trevsnn.engine.checkpoint import write_file
from trevsnn.reversible import unroll
from trevsnn.spike import THRESHOLD

OPSET = 21  # of ONNX Runtime from 1.18 on
STEPS = 127  # of 7 bits, and of 8 on either side of zero
ZERO = 128  # stands for 0 in maps of 8 bits
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class _Map:
    """A tensor of the graph: float (B, C, H, W), which can be added to and scaled, or uint8."""

    graph: _Graph
    name: str
    size: tuple[int, int]

    def __add__(self, other: _Map) -> _Map:
        return self.graph.add("Add", self.size, self.name, other.name)

    def scaled(self, factor: Floats) -> _Map:
        return self.graph.add("Mul", self.size, self.name, self.graph.constant(factor))


@dataclass(frozen=True)
class _Alpha:
    """alpha[l,t], which the recurrence multiplies states by."""

    values: Floats

    def __mul__(self, state: _Map) -> _Map:
        return state.scaled(self.values)


@dataclass
class _Graph:
    """Nodes and constants as they come; ``ranges`` is of :func:`seen_ranges`."""

    ranges: dict[nn.Module, Tensor]
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    spikes: dict[tuple[str, float], _Map] = field(default_factory=dict)

    def constant(self, values: Any) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(require("onnx").numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, operator: str, size: tuple[int, int], *inputs: str, **attributes: Any) -> _Map:
        name = f"{operator}{len(self.nodes)}"
        self.nodes.append(require("onnx").helper.make_node(operator, list(inputs), [name], **attributes))
        return _Map(self, name, size)

    def fires(self, potential: _Map, divisor: int = 1) -> _Map:
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

    def at_most_one(self, codes: _Map) -> _Map:
        return self.add("Clip", codes.size, codes.name, self.constant(np.uint8(0)), self.constant(np.uint8(1)))

    def numbers(self, codes: _Map, scale: float) -> _Map:
        """8-bit maps as float ones."""
        return self.add(
            "DequantizeLinear", codes.size, codes.name, self.constant(np.float32(scale)), self.constant(np.uint8(ZERO))
        )

    def conv(self, module: nn.Conv2d, x: _Map) -> _Map:
        """In float32."""
        inputs = [self.constant(module.weight.numpy())]
        if module.bias is not None:
            inputs.append(self.constant(module.bias.numpy()))
        return self.add("Conv", _size(module, x.size), x.name, *inputs, **_shape(module))

    def integer_conv(
        self, module: nn.Conv2d, x: _Map, step: Tensor | float, weight: Tensor, bias: Tensor, *, from_zero: int,
        to_zero: int,
    ) -> _Map:  # fmt: skip
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
        scale = torch.maximum(_scale(weight, steps), bias.abs().view(-1, 1, 1, 1) / 2**30)
        codes = (weight / scale).round().to(torch.int8)
        scale = scale.flatten()
        one = self.constant(np.float32(1))
        return self.add(
            "QLinearConv", _size(module, x.size), x.name, one, self.constant(np.uint8(from_zero)),
            self.constant(codes.numpy()), self.constant((scale / step).float().numpy()),
            self.constant(np.zeros(len(codes), np.int8)), one, self.constant(np.uint8(to_zero)),
            self.constant((bias / scale).round().to(torch.int32).numpy()), **_shape(module),
        )  # fmt: skip

    def link(self, module: nn.Conv2d, state: _Map, size: tuple[int, int] | None = None) -> _Map:
        """A link between levels: from spikes of a state to numbers, of the given size or that of its output."""
        step = float(self.ranges[module].max()) / STEPS
        codes = self.integer_conv(module, self.fires(state), step, *_parameters(module), from_zero=0, to_zero=ZERO)
        return self.numbers(codes if size in (None, codes.size) else self.doubled(codes, size), step)

    def doubled(self, x: _Map, size: tuple[int, int]) -> _Map:
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

    def pair(self, first: nn.Conv2d, second: nn.Conv2d, x: _Map, step: float, *, from_zero: int) -> _Map:
        """Numbers ``second(first(step * (x - from_zero)))`` of uint8 x, in uint8 between the two."""
        between = self.ranges[first] / STEPS
        weight, bias = _parameters(first)
        codes = self.integer_conv(first, x, between, weight * step, bias, from_zero=from_zero, to_zero=ZERO)
        weight, bias = _parameters(second)
        weight = weight * between.view((1, -1, 1, 1) if second.groups == 1 else (-1, 1, 1, 1))
        whole = float(self.ranges[second].max()) / STEPS
        return self.numbers(self.integer_conv(second, codes, whole, weight, bias, from_zero=ZERO, to_zero=ZERO), whole)

    def encoder(self, encoder: nn.Sequential, picture: _Map, largest: float) -> _Map:
        """The encoder of pictures, of no number above ``largest``; in float32 where it is not two linear convolutions."""
        stem, activation, projection = encoder
        if getattr(activation, "slope", None) != 1.0 or not isinstance(projection, nn.Conv2d):
            return self.plain(encoder, picture)
        step = largest / STEPS
        codes = self.add(
            "QuantizeLinear", picture.size, picture.name, self.constant(np.float32(step)), self.constant(np.uint8(ZERO))
        )
        return self.pair(_conv(stem), projection, codes, step, from_zero=ZERO)

    def half_block(self, expand: nn.ModuleDict, project: nn.ModuleDict, potential: _Map) -> _Map:
        """``DW2(PW2(s(PW1(DW1(s(v))))))``.

        DW1's least and greatest possible output in each channel are 0 and 127 in its code, which PW1's weights and bias
        undo.
        """
        dw1, pw1 = _conv(expand["dw1"]), _conv(expand["pw1"])
        pw2, dw2 = _conv(project["pw2"]), _conv(project["dw2"])
        weight, bias = _parameters(dw1)
        scale = _scale(weight, STEPS)
        weight = (weight / scale).round() * scale  # whose range it is, to the last step
        least = bias + weight.clamp(max=0).sum((1, 2, 3))
        # A little more than needed: many sums would come to half a step, which runtimes may round either way.
        step = (1.0001 * weight.abs().sum((1, 2, 3)) / STEPS).clamp(min=torch.finfo(weight.dtype).tiny)
        numbers = self.integer_conv(dw1, self.fires(potential), step, weight, bias - least, from_zero=0, to_zero=0)
        weight, bias = _parameters(pw1)
        bias = bias + (weight.flatten(1) @ least)
        weight = weight * step.view(1, -1, 1, 1)
        hidden = self.at_most_one(self.integer_conv(pw1, numbers, 2 * THRESHOLD, weight, bias, from_zero=0, to_zero=0))
        return self.pair(pw2, dw2, hidden, 1.0, from_zero=0)

    def level(self, level: FoldedLevel, step: int, below: _Map, above: _Map | None) -> _Map:
        """F[l,t](below, above), as :class:`trevsnn.deploy.folded.FoldedStep` computes it."""
        part = level.steps[step]
        assert isinstance(part, FoldedStep)
        potential = below
        if isinstance(part.below, nn.Conv2d):
            potential = self.link(part.below, below) if part.spiking else self.conv(part.below, below)
        if above is not None and part.above is not None:
            potential = potential + self.link(part.above, above, potential.size)
        potential = potential + self.half_block(part.expand1, part.project1, potential)
        return potential + self.half_block(part.expand2, level.shared, potential)

    def plain(self, module: nn.Module, x: _Map) -> _Map:
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


@torch.no_grad()
def export_integer(folded: FoldedTRevSNN, calibration: Tensor, path: Path, mark: str | None = None) -> None:
    """Write the network in 8-bit arithmetic, input ``input`` and output ``logits``, float32, a batch of any size.

    Args:
        folded: on the CPU, float32.
        calibration: inputs, as many as show the ranges of its maps: of the training part, of the size the file takes.
        path: of the file, for :class:`trevsnn.deploy.onnx_model.OnnxModel`.
        mark: of the network that it is a form of, to be kept in the file's metadata.

    Raises:
        UsageError: onnx is not installed.
    """
    onnx = require("onnx")
    graph = _Graph(seen_ranges(folded, calibration))
    size = calibration.shape[-2], calibration.shape[-1]
    x = _Map(graph, "input", size)
    config = folded.config
    if config.input == "image":
        assert isinstance(folded.encoder, nn.Sequential)
        inputs = [graph.encoder(folded.encoder, x, float(calibration.abs().max()))] * config.timesteps
    else:
        steps = [graph.constant(np.int64(t)) for t in range(config.timesteps)]
        inputs = [graph.add("Gather", size, "input", step, axis=1) for step in steps]
    levels: list[FoldedLevel] = list(folded.levels)  # type: ignore[arg-type]
    transforms = [[partial(graph.level, level, t) for level in levels] for t in range(config.timesteps)]
    alphas = [None if t == 0 else [_Alpha(a.alphas[t - 1].numpy()) for a in levels] for t in range(config.timesteps)]
    *_, states = unroll(transforms, alphas, inputs)  # type: ignore[arg-type]
    top: _Map = states[-1]  # type: ignore[assignment]
    spikes = graph.fires(top, folded.head.divisor)
    rates = graph.add("ReduceMean", (1, 1), graph.add("Cast", top.size, spikes.name, to=onnx.TensorProto.FLOAT).name,
                      graph.constant(np.array([2, 3], np.int64)), keepdims=0)  # fmt: skip
    logits = graph.plain(folded.head.classifier, rates)
    graph.nodes.append(onnx.helper.make_node("Identity", [logits.name], ["logits"]))
    real = onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(
        graph.nodes, "trevsnn",
        [onnx.helper.make_tensor_value_info("input", real, ["batch", *calibration.shape[1:]])],
        [onnx.helper.make_tensor_value_info("logits", real, ["batch", config.num_classes])], graph.constants,
    )  # fmt: skip
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)
    if mark is not None:
        onnx.helper.set_model_props(model, {MARK: mark})
    onnx.checker.check_model(model, full_check=True)
    write_file(path, model.SerializeToString())


def seen_ranges(folded: FoldedTRevSNN, x: Tensor) -> dict[nn.Module, Tensor]:
    """The largest absolute output of every convolution on ``x``, for each channel; over all steps where it is shared."""
    found: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        largest = output.abs().amax((0, 2, 3)).clamp(min=torch.finfo(output.dtype).tiny)
        found[module] = torch.maximum(found[module], largest) if module in found else largest

    handles = [m.register_forward_hook(note) for m in folded.modules() if isinstance(m, nn.Conv2d)]
    folded(x)
    for handle in handles:
        handle.remove()
    return found


def _conv(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    return module


def _parameters(module: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias, zero where there is none, in float64."""
    weight = module.weight.double()
    return weight, torch.zeros(len(weight), dtype=torch.float64) if module.bias is None else module.bias.double()


def _scale(weight: Tensor, steps: int) -> Tensor:
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
