"""From the nodes of an 8-bit ONNX file to the operators of the engine, by the roles that the writer put into the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trevsnn.deploy.extras import require
from trevsnn.deploy.int8.layers import IntegerConv, IntegerDepthwise, QLinearConv
from trevsnn.deploy.int8.maps import dequantise, pad_to_lanes, quantise, spike_codes
from trevsnn.deploy.int8.operators import attributes, operation
from trevsnn.deploy.onnx.roles import Loop
from trevsnn.errors import RunError


@dataclass
class Operator:
    """One loop, or one operator of ONNX.

    Attributes:
        run: computes the output from the inputs.
        inputs, output: names of maps.
        last_use_of: maps that no later operator takes.
    """

    run: Callable[..., Any]
    inputs: list[str]
    output: str
    last_use_of: list[str] = field(default_factory=list)


class Reader:
    """Makes an operator of each loop of a file (:mod:`trevsnn.deploy.onnx.roles` lists them).

    Args:
        constants: of the file's graph.
        crossover: firing rate from which on a convolution of spikes is dense.
    """

    def __init__(self, constants: Iterable[Any], crossover: float) -> None:
        to_array = require("onnx").numpy_helper.to_array
        self.constants = {tensor.name: np.array(to_array(tensor)) for tensor in constants}
        self.crossover = crossover

    def operator(self, loop: Loop) -> Operator:
        """The operator of a loop.

        Raises:
            RunError: this version knows no loop of such nodes.
        """
        match loop:
            case {"threshold": threshold, "dw1": dw1}:
                run = partial(IntegerDepthwise(self.conv_constants(dw1)).of_spikes, self.threshold(threshold))
                return self.made(loop, run, "threshold")
            case {"threshold": threshold, "spikes": _}:
                return self.made(loop, partial(spike_codes, self.threshold(threshold)), "threshold")
            case {"quantise": node}:
                scale, zero = self.values(node)
                return self.made(loop, partial(quantise, np.float32(scale), int(zero)), "quantise")
            case {"stem": node}:
                return self.made(loop, self.conv(node, picture=True), "stem")
            case {"projection": node}:
                return self.made(loop, self.conv(node), "projection")
            case {"link": node}:
                return self.made(loop, self.conv(node, spiking=True), "link")
            case {"pw1": node, "hidden": _}:
                return self.made(loop, self.conv(node, firing=True), "pw1")
            case {"pw2": node}:
                return self.made(loop, self.conv(node, spiking=True), "pw2")
            case {"dw2": dw2, "dequantise": node, "add": _}:
                conv = IntegerDepthwise(self.conv_constants(dw2))
                alpha = np.ones_like(conv.scale)
                if "decay" in loop:
                    alpha = pad_to_lanes(self.values(loop["decay"])[0].reshape(-1))
                scale, _ = self.values(node)
                return self.made(loop, partial(conv.added, np.float32(scale), alpha), "add", "dw2", "decay", "state")
            case {"dequantise": node}:
                scale, zero = self.values(node)
                repeats, size = int(self.values(loop["upsample"])[0][2]) if "upsample" in loop else 1, None
                if "crop" in loop:
                    height, width = self.values(loop["crop"])[1]
                    size = int(height), int(width)
                run = partial(dequantise, int(zero), np.float32(scale), repeats, size)
                return self.made(loop, run, "add", "upsample", "crop", "dequantise")
            case {"plain": node}:
                return self.made(loop, operation(node, self.values(node)), "plain")
        raise RunError(
            f"the ONNX file holds a loop of {', '.join(loop)}, which this version of trevsnn does not know: export the "
            "model again with this version."
        )

    def made(self, loop: Loop, run: Callable[..., Any], *roles: str) -> Operator:
        """The operator that gives the last map of a loop, from those maps that nodes of these roles take from outside."""
        inside = {node.output[0] for node in loop.values()} | self.constants.keys()
        nodes = [loop[role] for role in roles if role in loop]
        inputs = [name for node in nodes for name in node.input if name and name not in inside]
        return Operator(run, inputs, list(loop.values())[-1].output[0])

    def values(self, node: Any) -> list[NDArray[Any]]:
        """Those of a node's inputs that are constants, in ONNX's order."""
        return [self.constants[name] for name in node.input if name in self.constants]

    def conv_constants(self, node: Any) -> QLinearConv:
        return QLinearConv(*self.values(node))

    def conv(self, node: Any, **options: bool) -> IntegerConv:
        """A convolution without groups."""
        return IntegerConv(self.conv_constants(node), attributes(node), self.crossover, **options)

    def threshold(self, node: Any) -> np.float32:
        """The least potential that fires: QuantizeLinear's scale is the float32 before twice the threshold
        (:meth:`trevsnn.deploy.onnx.graph.Graph.spike_codes`)."""
        scale, _ = self.values(node)
        return np.float32(np.nextafter(scale, np.float32(np.inf)) / 2)
