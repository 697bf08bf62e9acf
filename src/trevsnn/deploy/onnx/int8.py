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

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trevsnn.deploy.extras import require
from trevsnn.deploy.fingerprint import MARK
from trevsnn.deploy.folded import FoldedLevel, FoldedStep, FoldedTRevSNN
from trevsnn.deploy.onnx.graph import STEPS, ZERO, Alpha, Graph, Map, weight_scale
from trevsnn.files import write_file
from trevsnn.network.spike import THRESHOLD
from trevsnn.reversible import unroll

OPSET = 21  # of ONNX Runtime from 1.18 on


class _Network(Graph):
    """The parts of a folded network.

    Args:
        ranges: of :func:`seen_ranges`.
    """

    def __init__(self, ranges: dict[nn.Module, Tensor]) -> None:
        super().__init__()
        self.ranges = ranges

    def link(self, module: nn.Conv2d, state: Map, size: tuple[int, int] | None = None) -> Map:
        """A link between levels: from spikes of a state to numbers, of the given size or that of its output."""
        step = float(self.ranges[module].max()) / STEPS
        codes = self.integer_conv(module, self.fires(state), step, *_parameters(module), from_zero=0, to_zero=ZERO)
        return self.numbers(codes if size in (None, codes.size) else self.doubled(codes, size), step)

    def pair(self, first: nn.Conv2d, second: nn.Conv2d, x: Map, step: float, *, from_zero: int) -> Map:
        """Numbers ``second(first(step * (x - from_zero)))`` of uint8 x, in uint8 between the two."""
        between = self.ranges[first] / STEPS
        weight, bias = _parameters(first)
        codes = self.integer_conv(first, x, between, weight * step, bias, from_zero=from_zero, to_zero=ZERO)
        weight, bias = _parameters(second)
        weight = weight * between.view((1, -1, 1, 1) if second.groups == 1 else (-1, 1, 1, 1))
        whole = float(self.ranges[second].max()) / STEPS
        return self.numbers(self.integer_conv(second, codes, whole, weight, bias, from_zero=ZERO, to_zero=ZERO), whole)

    def encoder(self, encoder: nn.Sequential, picture: Map, largest: float) -> Map:
        """The encoder of pictures, of no number above ``largest``; in float32 where it is not two linear convolutions."""
        stem, activation, projection = encoder
        if getattr(activation, "slope", None) != 1.0 or not isinstance(projection, nn.Conv2d):
            return self.plain(encoder, picture)
        step = largest / STEPS
        codes = self.add(
            "QuantizeLinear", picture.size, picture.name, self.constant(np.float32(step)), self.constant(np.uint8(ZERO))
        )
        return self.pair(_conv(stem), projection, codes, step, from_zero=ZERO)

    def half_block(self, expand: nn.ModuleDict, project: nn.ModuleDict, potential: Map) -> Map:
        """``DW2(PW2(s(PW1(DW1(s(v))))))``.

        DW1's least and greatest possible output in each channel are 0 and 127 in its code, which PW1's weights and bias
        undo.
        """
        dw1, pw1 = _conv(expand["dw1"]), _conv(expand["pw1"])
        pw2, dw2 = _conv(project["pw2"]), _conv(project["dw2"])
        weight, bias = _parameters(dw1)
        scale = weight_scale(weight, STEPS)
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

    def level(self, level: FoldedLevel, step: int, below: Map, above: Map | None) -> Map:
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


@torch.no_grad()
def export_integer(folded: FoldedTRevSNN, calibration: Tensor, path: Path, mark: str | None = None) -> None:
    """Write the network in 8-bit arithmetic, input ``input`` and output ``logits``, float32, a batch of any size.

    Args:
        folded: on the CPU, float32.
        calibration: inputs, as many as show the ranges of its maps: of the training part, of the size the file takes.
        path: of the file, for :class:`trevsnn.deploy.onnx.model.OnnxModel`.
        mark: of the network that it is a form of, to be kept in the file's metadata.

    Raises:
        UsageError: onnx is not installed.
    """
    onnx = require("onnx")
    graph = _Network(seen_ranges(folded, calibration))
    size = calibration.shape[-2], calibration.shape[-1]
    x = Map(graph, "input", size)
    config = folded.config
    if config.input == "image":
        assert isinstance(folded.encoder, nn.Sequential)
        inputs = [graph.encoder(folded.encoder, x, float(calibration.abs().max()))] * config.timesteps
    else:
        steps = [graph.constant(np.int64(t)) for t in range(config.timesteps)]
        inputs = [graph.add("Gather", size, "input", step, axis=1) for step in steps]
    levels: list[FoldedLevel] = list(folded.levels)  # type: ignore[arg-type]
    transforms = [[partial(graph.level, level, t) for level in levels] for t in range(config.timesteps)]
    alphas = [None if t == 0 else [Alpha(a.alphas[t - 1].numpy()) for a in levels] for t in range(config.timesteps)]
    *_, states = unroll(transforms, alphas, inputs)  # type: ignore[arg-type]
    top: Map = states[-1]  # type: ignore[assignment]
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
