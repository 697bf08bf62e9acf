"""The folded network in 8-bit arithmetic, as an ONNX file of standard operators.

The scheme is that of the package's docstring. Which ranges the maps have: DW1's output, what its weights allow; the
picture, the largest absolute value seen on training items; what PW2, DW2, the links and the encoder give, likewise, for
each output channel of PW2 and of the stem, and for all channels together where float32 follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trevsnn.deploy.folded import FoldedTRevSNN
from trevsnn.deploy.onnx.graph import MAX_CODE, ZERO, Map, weight_scale
from trevsnn.deploy.onnx.network import NetworkGraph, conv_of, write_network
from trevsnn.network.spike import THRESHOLD


class _Integer(NetworkGraph):
    """Spikes are codes in uint8.

    Args:
        ranges: of :func:`seen_ranges`.
        largest: absolute value of the input.
    """

    def __init__(self, ranges: dict[nn.Module, Tensor], largest: float) -> None:
        super().__init__(roles=True)
        self.ranges, self.largest = ranges, largest

    def fire(self, potential: Map, divisor: int = 1) -> Map:
        return self.spike_codes(potential, divisor)

    def link_codes(self, module: nn.Conv2d, state: Map) -> tuple[Map, float]:
        """The codes of a link's output ``conv(s(c))``, and what one unit of them is."""
        spikes, scale = self.spikes_of(state), self.map_scale(module)
        codes = self.integer_conv(module, spikes, scale, *_parameters(module), x_zero=0, y_zero=ZERO, role="link")
        return codes, scale

    def link(self, module: nn.Conv2d, state: Map) -> Map:
        return self.dequantise(*self.link_codes(module, state))

    def above(self, module: nn.Conv2d, state: Map, potential: Map) -> Map:
        codes, scale = self.link_codes(module, state)
        if codes.size == potential.size:
            return self.added(potential, self.dequantise(codes, scale))
        assert isinstance(potential.size, tuple)
        codes = self.upsampled_codes(codes, potential.size)
        return self.added(potential, self.dequantise(codes, scale, codes.loop))

    def encoder(self, encoder: nn.Module, picture: Map) -> Map:
        """In float32 where it is not two linear convolutions."""
        assert isinstance(encoder, nn.Sequential)
        stem, activation, projection = encoder
        if getattr(activation, "slope", None) != 1.0 or not isinstance(projection, nn.Conv2d):
            return self.plain(encoder, picture)
        stem, x_scale = conv_of(stem), self.largest / MAX_CODE
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
        dw2, spikes = conv_of(project["dw2"]), self.hidden_spikes(expand, potential)
        weight, bias = _parameters(conv_of(project["pw2"]))
        between, scale = self.channel_scales(project["pw2"]), self.map_scale(dw2)
        codes = self.integer_conv(
            conv_of(project["pw2"]), spikes, between, weight, bias, x_zero=0, y_zero=ZERO, role="pw2"
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
        dw1, pw1 = conv_of(expand["dw1"]), conv_of(expand["pw1"])
        weight, bias = _parameters(dw1)
        unit = weight_scale(weight, MAX_CODE)
        weight = (weight / unit).round() * unit  # as it is rounded in the file, whose range it is
        least = bias + weight.clamp(max=0).sum((1, 2, 3))
        # A little more than needed: many sums would be half a code, which runtimes may round either way.
        scale = (1.0001 * weight.abs().sum((1, 2, 3)) / MAX_CODE).clamp(min=torch.finfo(weight.dtype).tiny)
        spikes = self.spike_codes(potential)
        codes = self.integer_conv(
            dw1, spikes, scale, weight, bias - least, x_zero=0, y_zero=0, role="dw1", loop=spikes.loop
        )
        weight, bias = _parameters(pw1)
        bias = bias + (weight.flatten(1) @ least)
        weight = weight * scale.view(1, -1, 1, 1)
        codes = self.integer_conv(pw1, codes, 2 * THRESHOLD, weight, bias, x_zero=0, y_zero=0, role="pw1")
        return self.at_most_one(codes, "hidden")

    def rates(self, spikes: Map) -> Map:
        return super().rates(self.cast(spikes))

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
        ValueError: the network is not float32, or as :func:`trevsnn.deploy.foldable.check_writable`.
        RunError: the file cannot be written.
    """
    graph = _Integer(seen_ranges(folded, calibration), float(calibration.abs().max()))
    size = (calibration.shape[-2], calibration.shape[-1])
    write_network(graph, graph.logits(folded, size), folded, size, path, fingerprint, properties)


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


def _parameters(module: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias, zero where there is none, in float64."""
    weight = module.weight.double()
    return weight, torch.zeros(len(weight), dtype=torch.float64) if module.bias is None else module.bias.double()
