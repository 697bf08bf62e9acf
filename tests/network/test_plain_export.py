"""The network itself, not its folded form, as a program of torch.export and as an ONNX file."""

import pytest
import torch
from torch import nn

from helpers import example, trained_like
from trevsnn.network.spike import spike
from trevsnn.neurons import LIF, Momentary, SpikingNetwork, Summed

BATCH = ({0: torch.export.Dim("batch")},)
NETWORKS = [
    {},
    {"input": "event", "timesteps": 2},
    {"input": "event", "timesteps": 2, "readout": "mean"},
    {"encoding": "grouped", "encoder_stride": 4, "kernel_size": 5},
    {"slope": 0.3, "slice_bytes": 1, "timesteps": 1},
]
THRESHOLD = torch.tensor([0.5, torch.nextafter(torch.tensor(0.5), torch.tensor(0.0)), -0.5, 2.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("options", "mode", "strict"),
    [*((options, "exact", True) for options in NETWORKS), ({}, "exact", False), (NETWORKS[2], "exact", False),
     ({}, "autograd", False), (NETWORKS[3], "autograd", False)],
    ids=str,
)  # fmt: skip
def test_an_exported_program_computes_the_network_s_logits(options, mode, strict):
    model = trained_like(channels=(6, 8), **options, backprop=mode)
    x = example(model.config)
    program = torch.export.export(model, (x,), dynamic_shapes=BATCH, strict=strict).module()
    for batch in (x, x[:1], torch.cat([x, 2 * x])):
        torch.testing.assert_close(program(batch), model(batch), rtol=1e-13, atol=1e-13)
    assert model.backprop == mode


class Spikes(nn.Module):
    def forward(self, x):
        return spike(x)


def served(model, x, path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.onnx.export(model, (x,), path, dynamo=True, dynamic_shapes=BATCH, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", NETWORKS[1:4], ids=str)
def test_onnx_runtime_computes_the_network_s_logits(options, tmp_path):
    model = trained_like(channels=(6, 8), **options).float()
    x = example(model.config).float()
    run = served(model, x, tmp_path / "model.onnx")
    for batch in (x, x[:1], torch.cat([x, x])):
        expected = model(batch).detach()
        torch.testing.assert_close(run(batch), expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(run(batch).argmax(1), expected.argmax(1))


@pytest.mark.filterwarnings("ignore")
def test_onnx_runtime_computes_networks_of_more_levels_and_of_lif_neurons(tmp_path):
    """Each state is seen by several others, which the exporter's simplifications must survive."""
    model = trained_like(channels=(6, 8, 8), links="all", alphas="one").float()
    net = SpikingNetwork(4).eval()
    one = net.add(LIF(nn.Linear(6, 8)))
    two = net.add(LIF(Summed(nn.Linear(8, 8)), tau=3.0), one)
    net.add(Momentary(Summed(nn.Linear(8, 3))), one, two)
    for network, x in ((model, example(model.config).float()), (net, 3 * torch.rand(5, 6))):
        run = served(network, x, tmp_path / f"{type(network).__name__}.onnx")
        torch.testing.assert_close(run(x), network(x).detach(), rtol=1e-4, atol=1e-4)
        program = torch.export.export(network, (x,), dynamic_shapes=BATCH).module()
        for batch in (x, x[:2]):
            torch.testing.assert_close(program(batch), network(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_exported_spikes_are_exact_at_the_threshold(tmp_path):
    expected = torch.tensor([1.0, 0, 0, 1, 0, 1])
    assert torch.equal(spike(THRESHOLD), expected)
    program = torch.export.export(Spikes(), (THRESHOLD,), dynamic_shapes=BATCH).module()
    assert torch.equal(program(THRESHOLD), expected)
    assert torch.equal(served(Spikes(), THRESHOLD, tmp_path / "spikes.onnx")(THRESHOLD), expected)
