"""The network itself, not its folded form, as a program of torch.export and as an ONNX file."""

import pytest
import torch
from torch import nn

from helpers import example, trained_like
from trevsnn.network.spike import spike
from trevsnn.neurons import LIF, Momentary, SpikingNetwork, Summed

BATCH = ({0: torch.export.Dim("batch")},)
THRESHOLD = torch.tensor([0.5, torch.nextafter(torch.tensor(0.5), torch.tensor(0.0)), -0.5, 2.0, 0.0, 1.0])


def program_of(model, x, strict=False):
    return torch.export.export(model, (x,), dynamic_shapes=BATCH, strict=strict)


def served(model_or_program, x, path):
    """What ONNX Runtime computes of the file that PyTorch's exporter makes of a network, or of a program of it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    axes = BATCH if isinstance(model_or_program, nn.Module) else None  # a program has its own
    torch.onnx.export(model_or_program, (x,), path, dynamo=True, dynamic_shapes=axes, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def assert_same_logits(run, model, x, close):
    for batch in (x, x[:1], torch.cat([x, 2 * x])):
        expected = model(batch).detach()
        torch.testing.assert_close(run(batch), expected, rtol=close, atol=close)
        assert torch.equal(run(batch).argmax(1), expected.argmax(1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("options", "strict"),
    [
        ({"input": "event", "slope": 0.3, "slice_bytes": 1}, True),
        # Each state is seen by several others, which the exporter's simplifications must survive.
        ({"input": "event", "readout": "mean", "channels": (4, 4, 6), "links": "all", "alphas": "one"}, False),
    ],
    ids=str,
)
def test_programs_and_their_onnx_files_compute_the_network_s_logits(options, strict, tmp_path):
    model = trained_like(**{"channels": (4, 6), **options}).float()
    x = example(model.config).float()
    program = program_of(model, x, strict)
    assert_same_logits(program.module(), model, x, 1e-6)
    assert_same_logits(served(program, x, tmp_path / "model.onnx"), model, x, 1e-4)


@pytest.mark.filterwarnings("ignore")
def test_onnx_runtime_computes_the_logits_of_a_network_of_pictures(tmp_path):
    model = trained_like(channels=(4, 6), slope=0.3, timesteps=1).float()
    x = example(model.config).float()
    assert_same_logits(served(model, x, tmp_path / "model.onnx"), model, x, 1e-4)
    assert model.backprop == "exact"


@pytest.mark.parametrize("mode", ["exact", "autograd"])
def test_a_program_in_float64_computes_the_logits_whatever_the_backward_pass(mode):
    options = {"encoding": "grouped", "encoder_stride": 4, "kernel_size": 5}
    model = trained_like(channels=(4, 6), **options, backprop=mode)
    x = example(model.config)
    assert_same_logits(program_of(model, x).module(), model, x, 1e-13)
    assert model.backprop == mode


@pytest.mark.filterwarnings("ignore")
def test_networks_of_lif_neurons_are_exported_too(tmp_path):
    net = SpikingNetwork(3).eval()
    one = net.add(LIF(nn.Linear(6, 8)))
    two = net.add(LIF(Summed(nn.Linear(8, 8)), tau=3.0), one)
    net.add(Momentary(Summed(nn.Linear(8, 3))), one, two)
    x = 3 * torch.rand(5, 6)
    program = program_of(net, x)
    for batch in (x, x[:2]):
        torch.testing.assert_close(program.module()(batch), net(batch), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(served(program, x, tmp_path / "net.onnx")(x), net(x).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_exported_spikes_are_exact_at_the_threshold(tmp_path):
    class Spikes(nn.Module):
        def forward(self, x):
            return spike(x)

    expected = torch.tensor([1.0, 0, 0, 1, 0, 1])
    assert torch.equal(spike(THRESHOLD), expected)
    program = program_of(Spikes(), THRESHOLD)
    assert torch.equal(program.module()(THRESHOLD), expected)
    assert torch.equal(served(program, THRESHOLD, tmp_path / "spikes.onnx")(THRESHOLD), expected)
