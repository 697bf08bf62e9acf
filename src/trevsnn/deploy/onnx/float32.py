"""The folded network in float32, as an ONNX file of standard operators, for items of any height and width."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from trevsnn.deploy.folded import FoldedTRevSNN
from trevsnn.deploy.onnx.graph import Map
from trevsnn.deploy.onnx.network import NetworkGraph, conv_of, write_network


class _Float32(NetworkGraph):
    """All in float32."""

    def fire(self, potential: Map, divisor: int = 1) -> Map:
        return self.spikes(potential, divisor)

    def link(self, module: nn.Conv2d, state: Map) -> Map:
        return self.conv(module, self.spikes_of(state))

    def above(self, module: nn.Conv2d, state: Map, potential: Map) -> Map:
        return self.added(potential, self.upsampled(self.link(module, state), potential))

    def encoder(self, encoder: nn.Module, picture: Map) -> Map:
        return self.plain(encoder, picture)

    def block(self, expand: nn.ModuleDict, project: nn.ModuleDict, potential: Map) -> Map:
        hidden = self.spikes(potential)
        for part in (expand["dw1"], expand["pw1"]):
            hidden = self.conv(conv_of(part), hidden)
        hidden = self.spikes(hidden)
        for part in (project["pw2"], project["dw2"]):
            hidden = self.conv(conv_of(part), hidden)
        return self.added(potential, hidden)


@torch.no_grad()
def export_float32(
    folded: FoldedTRevSNN, path: Path, fingerprint: str | None = None, properties: Mapping[str, str] | None = None
) -> None:
    """Write the network in float32, input ``input`` and output ``logits``, for a batch, height and width of any size.

    Args:
        folded: on the CPU, float32.
        path: of the file, for ONNX Runtime, or any other runtime.
        fingerprint: of the network, for the file's metadata.
        properties: further metadata.

    Raises:
        UsageError: onnx is not installed.
        ValueError: the network is not float32; a convolution has an even kernel, a dilation, or other padding than zeros of half
            its kernel; or a number of the network is not finite.
        RunError: the file cannot be written.
    """
    graph = _Float32(names={tensor: name for name, tensor in folded.named_parameters()})
    write_network(graph, graph.logits(folded, 1), folded, ("height", "width"), path, fingerprint, properties)
