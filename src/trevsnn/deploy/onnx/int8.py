"""The folded network in 8-bit arithmetic, as an ONNX file of standard operators.

The scheme is that of the package's docstring. Which ranges the maps have: DW1's output, what its weights allow; the
picture, the largest absolute value seen on training items; what PW2, DW2, the links and the encoder give, likewise, for
each output channel of PW2 and of the stem, and for all channels together where float32 follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trevsnn.deploy.extras import require
from trevsnn.deploy.fingerprint import FINGERPRINT
from trevsnn.deploy.folded import FoldedHead, FoldedLevel, FoldedStep, FoldedTRevSNN
from trevsnn.deploy.onnx.graph import MAX_CODE, ZERO, Alpha, Graph, Map, weight_scale
from trevsnn.deploy.onnx.roles import write_role
from trevsnn.files import write_file
from trevsnn.network.blocks import linked
from trevsnn.network.spike import THRESHOLD

OPSET, IR_VERSION = 21, 10  # of ONNX Runtime from 1.18 on


class _Network(Graph):
    """The parts of a folded network.

    Args:
        ranges: of :func:`seen_ranges`.
    """

    def __init__(self, ranges: dict[nn.Module, Tensor]) -> None:
        super().__init__()
        self.ranges = ranges
        self.spikes_of_states: dict[str, Map] = {}  # several levels read them

    def link(self, module: nn.Conv2d, state: Map) -> tuple[Map, float]:
        """The codes of a link's output ``conv(s(c))``, and what one unit of them is."""
        spikes, scale = self.spikes_of(state), self.map_scale(module)
        codes = self.integer_conv(module, spikes, scale, *_parameters(module), x_zero=0, y_zero=ZERO, role="link")
        return codes, scale

    def spikes_of(self, state: Map) -> Map:
        """s(c), made once for all that read it."""
        if state.name not in self.spikes_of_states:
            self.spikes_of_states[state.name] = self.spikes(state)
        return self.spikes_of_states[state.name]

    def below(self, part: FoldedStep, below: Map) -> Map:
        """What the level below, or the input, gives a level, float32."""
        if not isinstance(part.below, nn.Conv2d):
            return below
        if not part.spiking:
            return self.conv(part.below, below)
        return self.dequantise(*self.link(part.below, below))

    def above(self, module: nn.Conv2d, state: Map, potential: Map) -> Map:
        """``v + link``, the link from a level above, upsampled where its map is smaller than the potential's."""
        codes, scale = self.link(module, state)
        if codes.size == potential.size:
            return self.added(potential, self.dequantise(codes, scale))
        codes = self.upsampled(codes, potential.size)
        return self.added(potential, self.dequantise(codes, scale, codes.loop))

    def encoder(self, encoder: nn.Sequential, picture: Map, largest: float) -> Map:
        """The encoder of pictures, of no number above ``largest``; in float32 where it is not two linear convolutions."""
        stem, activation, projection = encoder
        if getattr(activation, "slope", None) != 1.0 or not isinstance(projection, nn.Conv2d):
            return self.plain(encoder, picture)
        stem, x_scale = _conv(stem), largest / MAX_CODE
        weight, bias = _parameters(stem)
        between, scale = self.channel_scales(stem), self.map_scale(projection)
        codes = self.integer_conv(
            stem, self.quantise(picture, x_scale), between, weight * x_scale, bias, x_zero=ZERO, y_zero=ZERO, role="stem"
        )  # fmt: skip
        weight, bias = _parameters(projection)
        codes = self.integer_conv(
            projection, codes, scale, weight * between.view(1, -1, 1, 1), bias, x_zero=ZERO, y_zero=ZERO,
            role="projection",
        )  # fmt: skip
        return self.dequantise(codes, scale)

    def block(self, expand: nn.ModuleDict, project: nn.ModuleDict, potential: Map) -> Map:
        """``v + DW2(PW2(s(PW1(DW1(s(v))))))``."""
        dw2, spikes = _conv(project["dw2"]), self.hidden_spikes(expand, potential)
        weight, bias = _parameters(_conv(project["pw2"]))
        between, scale = self.channel_scales(project["pw2"]), self.map_scale(dw2)
        codes = self.integer_conv(
            _conv(project["pw2"]), spikes, between, weight, bias, x_zero=0, y_zero=ZERO, role="pw2"
        )  # fmt: skip
        weight, bias = _parameters(dw2)
        weight = weight * between.view(-1, 1, 1, 1)
        codes = self.integer_conv(dw2, codes, scale, weight, bias, x_zero=ZERO, y_zero=ZERO, role="dw2")
        return self.added(potential, self.dequantise(codes, scale, codes.loop))

    def hidden_spikes(self, expand: nn.ModuleDict, potential: Map) -> Map:
        """``s(PW1(DW1(s(v))))``, with DW1's output in 7 bits of the range that its weights allow.

        Spikes are 0 or 1, so DW1's output ``x`` is at least ``least = b + (sum of the weights below 0)`` and at most
        ``sum |w|`` above it, for each channel. Its code is ``q = (x - least) / scale`` within 0..127, and
        ``PW1(x) = W x + b = (W scale) q + (b + W least)``. PW1's own code is in units of twice the threshold: it is 1 or
        more where PW1's output is at the threshold or above.
        """
        dw1, pw1 = _conv(expand["dw1"]), _conv(expand["pw1"])
        weight, bias = _parameters(dw1)
        unit = weight_scale(weight, MAX_CODE)
        weight = (weight / unit).round() * unit  # as it is rounded in the file, whose range it is
        least = bias + weight.clamp(max=0).sum((1, 2, 3))
        # A little more than needed: many sums would be half a code, which runtimes may round either way.
        scale = (1.0001 * weight.abs().sum((1, 2, 3)) / MAX_CODE).clamp(min=torch.finfo(weight.dtype).tiny)
        spikes = self.spikes(potential)
        codes = self.integer_conv(
            dw1, spikes, scale, weight, bias - least, x_zero=0, y_zero=0, role="dw1", loop=spikes.loop
        )
        weight, bias = _parameters(pw1)
        bias = bias + (weight.flatten(1) @ least)
        weight = weight * scale.view(1, -1, 1, 1)
        codes = self.integer_conv(pw1, codes, 2 * THRESHOLD, weight, bias, x_zero=0, y_zero=0, role="pw1")
        return self.at_most_one(codes, "hidden")

    def level(self, level: FoldedLevel, t: int, below: Map, *above: Map | None) -> Map:
        """F[l,t](below, above), as :class:`trevsnn.deploy.folded.FoldedStep` computes it."""
        part = level.steps[t]
        assert isinstance(part, FoldedStep)
        potential = self.below(part, below)
        for link, state in linked((part.above, *part.further), above):
            potential = self.above(_conv(link), state, potential)
        potential = self.block(part.expand1, part.project1, potential)
        return self.block(part.expand2, level.shared, potential)

    def rates(self, spikes: Map) -> Map:
        """The mean of spikes over the pixels, (B, C), float32."""
        spikes = self.add("Cast", spikes.size, spikes.name, to=require("onnx").TensorProto.FLOAT)
        return self.add("ReduceMean", (1, 1), spikes.name, self.constant(np.array([2, 3], np.int64)), keepdims=0)

    def head(self, head: FoldedHead, rates: Sequence[Map]) -> Map:
        """Logits, as :class:`trevsnn.deploy.folded.FoldedHead` computes them."""
        if isinstance(head.classifier, nn.Linear):
            return self.plain(head.classifier, self.mean(rates))
        return self.mean([self.plain(head.classifier, rate) for rate in rates])

    def mean(self, maps: Sequence[Map]) -> Map:
        """The mean of maps of one shape, float32."""
        return self.add("Mean", maps[0].size, *(x.name for x in maps)) if len(maps) > 1 else maps[0]

    def channel_scales(self, module: nn.Module) -> Tensor:
        """What one unit of a convolution's output code is, for each channel."""
        return self.ranges[module] / MAX_CODE

    def map_scale(self, module: nn.Module) -> float:
        """The same for all channels together."""
        return float(self.ranges[module].max()) / MAX_CODE


@torch.no_grad()
def export_integer(
    folded: FoldedTRevSNN, calibration: Tensor, path: Path, fingerprint: str | None = None,
    properties: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Write the network in 8-bit arithmetic, input ``input`` and output ``logits``, float32, a batch of any size.

    Args:
        folded: on the CPU, float32.
        calibration: items of the training part, of the size the file takes, as many as show the ranges of the maps:
            pictures (N, in_chans, H, W) or frames (N, T, in_chans, H, W).
        path: of the file, for :class:`trevsnn.deploy.onnx.model.OnnxModel` and
            :class:`trevsnn.deploy.int8.engine.SpikeDriven`.
        fingerprint: of the network, for the file's metadata.
        properties: further metadata.

    Raises:
        UsageError: onnx is not installed.
    """
    onnx = require("onnx")
    graph = _Network(seen_ranges(folded, calibration))
    graph.nodes.append(onnx.helper.make_node("Identity", [_build(graph, folded, calibration).name], ["logits"]))
    write_role(graph.nodes[-1], "plain", "logits")
    real = onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(
        graph.nodes, "trevsnn",
        [onnx.helper.make_tensor_value_info("input", real, ["batch", *calibration.shape[1:]])],
        [onnx.helper.make_tensor_value_info("logits", real, ["batch", folded.config.num_classes])], graph.constants,
    )  # fmt: skip
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    own = {} if fingerprint is None else {FINGERPRINT: fingerprint}
    onnx.helper.set_model_props(model, {**own, **(properties or {})})
    onnx.checker.check_model(model, full_check=True)
    write_file(path, model.SerializeToString())


def _build(graph: _Network, folded: FoldedTRevSNN, calibration: Tensor) -> Map:
    """Put the network into the graph; the logits."""
    timesteps = range(folded.config.timesteps)
    x = Map(graph, "input", (calibration.shape[-2], calibration.shape[-1]))
    if folded.config.input == "image":
        assert isinstance(folded.encoder, nn.Sequential)
        inputs = [graph.encoder(folded.encoder, x, float(calibration.abs().max()))] * len(timesteps)
    else:
        indices = [graph.constant(np.int64(t)) for t in timesteps]
        inputs = [graph.add("Gather", x.size, x.name, index, axis=1) for index in indices]
    divisor = folded.head.divisor
    states: Iterator[Map] = folded.read_states(
        inputs, lambda _, level, t: partial(graph.level, level, t), lambda _, level, t: Alpha.of(level.alpha(t))
    )
    rates = [graph.rates(graph.spikes_of(top) if divisor == 1 else graph.spikes(top, divisor)) for top in states]
    return graph.head(folded.head, rates)


def seen_ranges(folded: FoldedTRevSNN, x: Tensor) -> dict[nn.Module, Tensor]:
    """``max |y|`` of every convolution's output on ``x``, for each channel; over all timesteps where it is shared."""
    ranges: dict[nn.Module, Tensor] = {}

    def observe(module: nn.Module, _: Any, output: Tensor) -> None:
        largest = output.abs().amax((0, 2, 3)).clamp(min=torch.finfo(output.dtype).tiny)
        ranges[module] = torch.maximum(ranges[module], largest) if module in ranges else largest

    handles = [m.register_forward_hook(observe) for m in folded.modules() if isinstance(m, nn.Conv2d)]
    folded(x)
    for handle in handles:
        handle.remove()
    return ranges


def _conv(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    return module


def _parameters(module: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias, zero where there is none, in float64."""
    weight = module.weight.double()
    return weight, torch.zeros(len(weight), dtype=torch.float64) if module.bias is None else module.bias.double()
