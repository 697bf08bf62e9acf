"""A folded network as a NIR graph, and as the content of a .nir file."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from trevsnn.deploy.extras import require
from trevsnn.deploy.fingerprint import FINGERPRINT
from trevsnn.deploy.foldable import check_writable
from trevsnn.deploy.folded import FoldedHead, FoldedLevel, FoldedStep, FoldedTRevSNN
from trevsnn.deploy.nir.graph import Alpha, Graph, Value
from trevsnn.errors import UsageError
from trevsnn.network.blocks import linked
from trevsnn.network.encoders import AnnealedLeakyReLU


def to_nir(
    folded: FoldedTRevSNN, size: tuple[int, int], fingerprint: str | None = None,
    properties: Mapping[str, str] | None = None,
) -> Any:  # fmt: skip
    """The network as a graph of NIR (https://neuroir.org), for items of one size, all timesteps unrolled.

    Args:
        folded: on the CPU; of :func:`trevsnn.deploy.folded.fold`.
        size: H, W of a picture or frame.
        fingerprint: of the network, for the graph's metadata.
        properties: further metadata.

    Returns:
        A ``nir.NIRGraph``, its numbers in the network's dtype. Node ``input`` takes (in_chans, H, W), of event frames
        (T * in_chans, H, W), and ``output`` gives (K,), the logits. NIR knows no batch axis.

    Raises:
        UsageError: nir is not installed, or the network has a leaky ReLU, whose slope is not 1.
        ValueError: a convolution has an even kernel, a dilation, or other padding than zeros of half its kernel; or a number of
            the network is not finite.
    """
    nir = require("nir", "nir")
    check_writable(folded)
    for module in folded.modules():
        if isinstance(module, AnnealedLeakyReLU) and module.slope != 1.0:
            raise UsageError(
                f"NIR has no leaky ReLU, and this network's has slope {module.slope:g}: train it until the slope is 1, "
                "beyond epoch slope_epochs, or leave nir out of --formats."
            )
    config = folded.config
    graph = Graph(next(folded.parameters()).numpy().dtype)
    frames = config.timesteps if config.input == "event" else 1
    channels = config.in_chans or 0
    shape = (frames * channels, *size)
    x = graph.add("input", nir.Input(np.array(shape)), None, shape)
    timesteps = range(config.timesteps)
    if config.input == "event":
        selected = np.eye(frames * channels, dtype=graph.dtype).reshape(frames, channels, -1, 1, 1)
        inputs = [graph.convolved(f"frame{t}", selected[t].copy(), x) for t in timesteps]
    else:
        inputs = [_chain(graph, "encoder", folded.encoder, x)] * len(timesteps)
    states: Iterator[Value] = folded.read_states(
        inputs, lambda index, level, t: partial(_transform, graph, index, level, t), _alpha
    )
    read = zip(config.read_timesteps, states, strict=True)
    rates = [_rates(graph, folded.head, state, f"head_t{t}") for t, state in read]
    logits = _logits(graph, folded.head, rates)
    graph.add("output", nir.Output(np.array(logits.shape)), logits, logits.shape)
    metadata = dict(properties or {}) | ({} if fingerprint is None else {FINGERPRINT: fingerprint})
    # nir 1.0.8 takes a grouped convolution's weight.shape[1] for its input's channels, so that no check of types passes.
    made = nir.NIRGraph(graph.nodes, graph.edges, metadata, type_check=False)
    made.validate_structure()
    return made


def nir_file(graph: Any) -> bytes:
    """The content of the HDF5 file that ``nir.write`` makes of a graph."""
    content = io.BytesIO()
    require("nir", "nir").write(content, graph)
    return content.getvalue()


def _alpha(index: int, level: FoldedLevel, t: int) -> Alpha | None:
    alpha = level.alpha(t)
    return None if alpha is None else Alpha(alpha.numpy(), f"level{index}_t{t}_decay")


def _chain(graph: Graph, name: str, module: nn.Module, x: Value) -> Value:
    """Convolutions one after the other; leaky ReLUs, of slope 1, and identities are nothing."""
    for i, part in enumerate(module if isinstance(module, nn.Sequential) else [module]):
        if isinstance(part, nn.Conv2d):
            x = graph.conv(f"{name}{i or ''}", part, x)
    return x


def _transform(graph: Graph, index: int, level: FoldedLevel, t: int, below: Value, *above: Value | None) -> Value:
    """F[l,t](below, above)."""
    place = f"level{index}_t{t}"
    step: FoldedStep = level.steps[t]  # type: ignore[assignment]
    potential = _chain(graph, f"{place}_below", step.below, below.spikes() if step.spiking else below)
    for i, (link, state) in enumerate(linked((step.above, *step.further), above)):
        maps = graph.conv(f"{place}_above{i or ''}", link, state.spikes())  # type: ignore[arg-type]
        potential = potential.plus(graph.upsampled(maps, potential.shape[1:]), f"{place}_fused{i or ''}")
    # At t = 0 the second block's potential is the state itself.
    names = (f"{place}_block1", f"{place}_transform" if t else f"{place}_state")
    blocks = ((step.expand1, step.project1), (step.expand2, level.shared))
    for block, (name, (expand, project)) in enumerate(zip(names, blocks, strict=True), 1):
        own = Value(graph, f"{place}_v{block}", potential.terms, potential.shape)  # x[t] is read by every timestep
        hidden = own.spikes()
        for part, convs in (("expand", expand), ("project", project)):
            for conv_name, conv in convs.items():
                assert isinstance(conv, nn.Conv2d)
                hidden = graph.conv(f"{place}_{part}{block}_{conv_name}", conv, hidden)
            hidden = hidden.spikes() if part == "expand" else hidden
        potential = own.plus(hidden, name)
    return potential


def _rates(graph: Graph, head: FoldedHead, state: Value, name: str) -> Value:
    """The mean over the pixels of the top level's spikes, (C, 1, 1)."""
    channels, *size = state.shape
    node = require("nir", "nir").AvgPool2d(np.array(size), np.array(size), np.zeros(2, int))
    return graph.add(name, node, state.spikes(head.divisor), (channels, 1, 1))


def _logits(graph: Graph, head: FoldedHead, rates: list[Value]) -> Value:
    """The classifier of the mean over time, whose division its weight does."""
    total = rates[0]
    for t, rate in enumerate(rates[1:], 1):
        total = total.plus(rate, f"head_until{t}")
    linear = head.classifier
    assert isinstance(linear, nn.Linear)
    flat = (linear.in_features,)
    x = graph.add("flatten", require("nir", "nir").Flatten({"input": np.array(total.shape)}, 0, -1), total, flat)
    weight = (linear.weight / len(rates)).numpy()
    return graph.add("classifier", require("nir", "nir").Affine(weight, linear.bias.numpy()), x, (linear.out_features,))
