"""What the float32 and the 8-bit file of a folded network share: its parts in an ONNX graph, and the file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trevsnn.deploy.extras import require
from trevsnn.deploy.fingerprint import FINGERPRINT
from trevsnn.deploy.foldable import check_writable
from trevsnn.deploy.folded import FoldedHead, FoldedLevel, FoldedStep, FoldedTRevSNN
from trevsnn.deploy.onnx.graph import Alpha, Graph, Map, Size
from trevsnn.deploy.onnx.roles import write_role
from trevsnn.files import write_file
from trevsnn.network.blocks import linked

OPSET, IR_VERSION = 21, 10  # of ONNX Runtime from 1.18 on


class NetworkGraph(Graph, ABC):
    """The graph of a folded network, whose spikes, links and blocks a subclass computes in its arithmetic."""

    @abstractmethod
    def fire(self, potential: Map, divisor: int = 1) -> Map:
        """``s(v / divisor)``."""

    @abstractmethod
    def link(self, module: nn.Conv2d, state: Map) -> Map:
        """``conv(s(c))`` of the level below, float32."""

    @abstractmethod
    def above(self, module: nn.Conv2d, state: Map, potential: Map) -> Map:
        """``v + link``, the link from a level above, upsampled to the potential's size."""

    @abstractmethod
    def encoder(self, encoder: nn.Module, picture: Map) -> Map:
        """The encoder of pictures, float32."""

    @abstractmethod
    def block(self, expand: nn.ModuleDict, project: nn.ModuleDict, potential: Map) -> Map:
        """``v + DW2(PW2(s(PW1(DW1(s(v))))))``."""

    def spikes_of(self, state: Map, divisor: int = 1) -> Map:
        """``s(c / divisor)``, made once for all that read it."""
        key = ("spikes", state.name, divisor)
        if key not in self.once:
            self.once[key] = self.fire(state, divisor).name
        return Map(self, self.once[key], state.size)

    def below(self, step: FoldedStep, below: Map) -> Map:
        """What the level below, or the input, gives a level, float32."""
        if not isinstance(step.below, nn.Conv2d):
            return below
        return self.link(step.below, below) if step.spiking else self.conv(step.below, below)

    def level(self, level: FoldedLevel, t: int, below: Map, *above: Map | None) -> Map:
        """F[l,t](below, above), as :class:`trevsnn.deploy.folded.FoldedStep` computes it."""
        step = level.steps[t]
        assert isinstance(step, FoldedStep)
        potential = self.below(step, below)
        for link, state in linked((step.above, *step.further), above):
            potential = self.above(conv_of(link), state, potential)
        potential = self.block(step.expand1, step.project1, potential)
        return self.block(step.expand2, level.shared, potential)

    def rates(self, spikes: Map) -> Map:
        """The mean of spikes over the pixels, (B, C), both float32."""
        return self.add("ReduceMean", (1, 1), spikes.name, self.constant(np.array([2, 3], np.int64)), keepdims=0)

    def head(self, head: FoldedHead, rates: Sequence[Map]) -> Map:
        """Logits, as :class:`trevsnn.deploy.folded.FoldedHead` computes them."""
        if isinstance(head.classifier, nn.Linear):
            return self.plain(head.classifier, self.mean(rates))
        return self.mean([self.plain(head.classifier, rate) for rate in rates])

    def mean(self, maps: Sequence[Map]) -> Map:
        """The mean of maps of one shape, float32."""
        return self.add("Mean", maps[0].size, *(x.name for x in maps)) if len(maps) > 1 else maps[0]

    def logits(self, folded: FoldedTRevSNN, size: Size) -> Map:
        """Put the whole network into the graph, from input ``input`` of a size.

        Raises:
            ValueError: the network is not float32, or :func:`trevsnn.deploy.foldable.check_writable` refuses it.
        """
        check_writable(folded)
        if (dtype := next(folded.parameters()).dtype) != torch.float32:
            raise ValueError(f"the network is {dtype}, and ONNX files are float32: fold(model.float()).")
        timesteps = range(folded.config.timesteps)
        x = Map(self, "input", size)
        if folded.config.input == "image":
            inputs = [self.encoder(folded.encoder, x)] * len(timesteps)
        else:
            indices = [self.constant(np.int64(t)) for t in timesteps]
            inputs = [self.add("Gather", size, x.name, index, axis=1) for index in indices]
        states: Iterator[Map] = folded.read_states(
            inputs, lambda _, level, t: partial(self.level, level, t), lambda _, level, t: Alpha.of(level.alpha(t))
        )
        return self.head(folded.head, [self.rates(self.spikes_of(top, folded.head.divisor)) for top in states])


def write_network(
    graph: NetworkGraph, logits: Map, folded: FoldedTRevSNN, size: tuple[int, int] | tuple[str, str], path: Path,
    fingerprint: str | None, properties: Mapping[str, str] | None,
) -> None:  # fmt: skip
    """Write a graph as an ONNX file, input ``input`` and output ``logits``, float32, with a batch of any size.

    Args:
        graph: of the network.
        logits: what it gives.
        folded: the network.
        size: height and width of the input; those of any size by their names.
        path: of the file.
        fingerprint: of the network, for the file's metadata.
        properties: further metadata.

    Raises:
        UsageError: onnx is not installed.
        RunError: the file cannot be written.
    """
    onnx = require("onnx")
    config = folded.config
    frames = (config.timesteps,) if config.input == "event" else ()
    graph.nodes.append(onnx.helper.make_node("Identity", [logits.name], ["logits"]))
    if graph.roles:
        write_role(graph.nodes[-1], "plain", "logits")
    real = onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(
        graph.nodes, "trevsnn",
        [onnx.helper.make_tensor_value_info("input", real, ["batch", *frames, config.in_chans, *size])],
        [onnx.helper.make_tensor_value_info("logits", real, ["batch", config.num_classes])], graph.constants,
    )  # fmt: skip
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    own = {} if fingerprint is None else {FINGERPRINT: fingerprint}
    onnx.helper.set_model_props(model, {**own, **(properties or {})})
    onnx.checker.check_model(model, full_check=True)
    write_file(path, model.SerializeToString())


def conv_of(module: nn.Module) -> nn.Conv2d:
    """A module that is a convolution."""
    assert isinstance(module, nn.Conv2d)
    return module
