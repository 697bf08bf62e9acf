"""The NIR graph of a network against the network, spike for spike, by a reader of this file's own."""

import io

import numpy as np
import pytest
import torch
from torch.nn import functional

from helpers import example, trained_like
from trevsnn.deploy.folded import fold
from trevsnn.deploy.nir.network import nir_file, to_nir
from trevsnn.deploy.nir.runner import NirModel
from trevsnn.network import blocks, heads

nir = pytest.importorskip("nir")


def read(content):
    return nir.read(io.BytesIO(content), type_check=False)


def run(graph, x):
    """Every node's output by name, each computed once what leads to it is there."""
    values, left = {}, dict(graph.nodes)
    while left:
        for name, node in list(left.items()):
            sources = [a for a, b in graph.edges if b == name]
            if not all(source in values for source in sources):
                continue
            v = x if isinstance(node, nir.Input) else torch.stack([values[source] for source in sources]).sum(0)
            p = {k: torch.from_numpy(a) for k, a in vars(node).items() if isinstance(a, np.ndarray) and a.ndim}
            if isinstance(node, nir.Conv2d):
                v = functional.conv2d(
                    v, p["weight"], p["bias"], tuple(node.stride), tuple(node.padding), 1, int(node.groups)
                )
            elif isinstance(node, nir.Threshold):
                v = torch.where(v > p["threshold"], 1.0, 0.0).to(v.dtype)
            elif isinstance(node, nir.Scale):
                v = v * p["scale"]
            elif isinstance(node, nir.AvgPool2d):
                assert tuple(node.kernel_size) == tuple(v.shape[2:])
                v = v.mean((2, 3), keepdim=True)
            elif isinstance(node, nir.Flatten):
                assert node.start_dim == 0
                v = v.reshape(len(v), -1)
            elif isinstance(node, nir.Affine):
                v = v @ p["weight"].T + p["bias"]
            else:
                assert isinstance(node, nir.Input | nir.Output)
            values[name] = v
            del left[name]
    return values


def spikes_of_eager(model, x, monkeypatch):
    """Every map of spikes that the network makes, and its logits."""
    maps, plain = [], blocks.spike

    def kept(potential):
        maps.append(plain(potential))
        return maps[-1]

    for module in (blocks, heads):
        monkeypatch.setattr(module, "spike", kept)
    model.set_backprop("autograd")
    with torch.no_grad():
        return model(x), maps


def ones(maps):
    """How many spikes each neuron fires of a map, for each item, as a sorted list: maps that are equal have one."""
    return {(tuple(spikes.shape), tuple(spikes.bool().flatten().nonzero().flatten().tolist())) for spikes in maps}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoding": "grouped", "encoder_stride": 2},
        {"links": "all", "timesteps": 3},
        {"alphas": "one", "timesteps": 3, "links": "all"},
        {"input": "event", "timesteps": 3},
        {"input": "event", "readout": "mean", "timesteps": 3, "kernel_size": 5},
        {"encoder_stride": 4, "channels": (4, 5)},
    ],
    ids=str,
)
def test_every_spike_is_that_of_the_network(options, monkeypatch):
    model = trained_like(**options)
    x = example(model.config, batch=2, size=12)[..., :11]  # 11 wide: some pixels are repeated less often
    graph = read(nir_file(to_nir(fold(model), (12, 11))))
    values = run(graph, x.flatten(1, -3))
    logits, eager = spikes_of_eager(model, x, monkeypatch)
    torch.testing.assert_close(values["output"], logits, rtol=0, atol=1e-12)
    spikes = [values[name] for name, node in graph.nodes.items() if isinstance(node, nir.Threshold)]
    assert len(spikes) >= 4 * len(model.config.channels) * model.config.timesteps
    assert ones(spikes) == ones(eager)
    torch.testing.assert_close(NirModel(nir_file(graph))(x), logits, rtol=0, atol=1e-12)
