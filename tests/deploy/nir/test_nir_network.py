"""The NIR graph of a network against the network, spike for spike, by a reader of this file's own."""

import json
import sys

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

from helpers import example, trained_like
from trevsnn.cli.main import main
from trevsnn.deploy.folded import fold
from trevsnn.deploy.nir.network import nir_file, to_nir
from trevsnn.deploy.nir.runner import NirModel
from trevsnn.errors import UsageError
from trevsnn.network import blocks, heads
from trevsnn.run.load import load_run

nir = pytest.importorskip("nir")


@torch.no_grad()
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
    """Which neurons of every map fire, in no order: eager and the graph name and order their maps differently."""
    return {(tuple(spikes.shape), tuple(spikes.flatten().nonzero().flatten().tolist())) for spikes in maps}


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
    x = example(model.config, batch=2, size=9)[..., :7]  # some pixels are repeated less often than others
    graph = to_nir(fold(model), (9, 7))
    values = run(graph, x.flatten(1, -3))
    logits, eager = spikes_of_eager(model, x, monkeypatch)
    torch.testing.assert_close(values["output"], logits, rtol=0, atol=1e-12)
    spikes = [values[name] for name, node in graph.nodes.items() if isinstance(node, nir.Threshold)]
    assert len(spikes) >= 4 * len(model.config.channels) * model.config.timesteps
    assert ones(spikes) == ones(eager)


def test_the_runner_takes_frames_as_the_network_does():
    model = trained_like(input="event", channels=(3, 4))
    x = example(model.config, batch=2, size=6)
    torch.testing.assert_close(NirModel(nir_file(to_nir(fold(model), (6, 6))))(x), model(x), rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The shipped network exported by the command line."""
    out = tmp_path_factory.mktemp("nir") / "digits"
    assert main(["export", "digits", "--out", str(out), "--formats", "nir"]) == 0
    return out


def test_the_shipped_digits_network_goes_through_a_file(digits, monkeypatch):
    rows = {row["name"]: row for row in json.loads((digits / "about.json").read_text())["comparisons"]}
    # In float32 a potential within rounding of the threshold may fall on its other side, in one item of these.
    assert rows["NIR"]["same_class"] == rows["NIR"]["items"] == 256
    assert "| NIR |" in (digits / "README.md").read_text()
    graph = nir.read(digits / "model.nir", type_check=False)
    assert set(graph.metadata) == {"trevsnn", "classes", "input", "size", "channels", "mean", "std", "interpolation", "crop", "resize"}  # fmt: skip
    model = load_run(digits, "last")[0].eval()
    # In float64 no potential is within rounding of the threshold.
    values = run(to_nir(fold(model.double()), (8, 8)), x := torch.randn(4, 1, 8, 8).double())
    logits, eager = spikes_of_eager(model, x, monkeypatch)
    torch.testing.assert_close(values["output"], logits, rtol=0, atol=1e-12)
    assert ones(values[name] for name, node in graph.nodes.items() if isinstance(node, nir.Threshold)) == ones(eager)
    assert {type(node).__name__ for node in graph.nodes.values()} == {
        "Input", "Conv2d", "Threshold", "Scale", "AvgPool2d", "Flatten", "Affine", "Output",
    }  # fmt: skip


def test_what_is_written_reads_back_equal(digits):
    graph = to_nir(fold(load_run(digits, "last")[0]), (8, 8))
    again = nir.read(digits / "model.nir", type_check=False)
    assert set(again.edges) == set(graph.edges)
    assert again.nodes.keys() == graph.nodes.keys()
    for name, node in graph.nodes.items():
        theirs = again.nodes[name]
        assert type(theirs) is type(node)
        for field, value in node.to_dict().items():
            np.testing.assert_array_equal(np.asarray(theirs.to_dict()[field]), np.asarray(value), err_msg=name)
    with h5py.File(digits / "model.nir") as file:  # numbers and text, no objects that something would have to unpickle
        file["node/nodes"].visititems(
            lambda name, item: isinstance(item, h5py.Group) or item.dtype.kind in "iuf" or bool(h5py.check_string_dtype(item.dtype)) or pytest.fail(name)
        )  # fmt: skip


def test_a_sum_has_two_terms_so_that_its_order_does_not_matter(digits):
    graph = nir.read(digits / "model.nir", type_check=False)
    targets = [target for _, target in graph.edges]
    assert max(map(targets.count, set(targets))) == 2
    half = np.float32(0.5)
    for node in graph.nodes.values():
        if isinstance(node, nir.Threshold):
            assert (node.threshold < half).all()
            assert (np.nextafter(node.threshold, half) == half).all()


def test_a_leaky_relu_is_refused():
    with pytest.raises(UsageError, match=r"NIR has no leaky ReLU, and this network's has slope 0\.5: train it until"):
        to_nir(fold(trained_like(slope=0.5, timesteps=1, channels=(4, 5))), (12, 12))


def test_a_missing_extra_names_the_line_that_installs_nir(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "nir", None)
    assert main(["export", "digits", "--out", str(tmp_path / "x"), "--formats", "nir"]) == 2
    assert "nir is not installed: pip install 'trevsnn[nir]'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
