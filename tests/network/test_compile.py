"""torch.compile: one graph in evaluation, and of training in autograd mode on an accelerator; elsewhere it is shown no network."""

import pytest
import torch
import torch._dynamo
from torch._dynamo.testing import CompileCounterWithBackend

import trevsnn
from conftest import worst


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradients_of(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.filterwarnings("ignore")
def test_evaluation_is_one_graph(small_model, device):
    """By the compiler of C++ or Triton; larger networks are traced alone, in other tests, as it takes long."""
    model = small_model(channels=(4, 6), timesteps=1, in_chans=1).eval()
    x = torch.randn(3, 1, 8, 8).to(device)
    with torch.no_grad():
        assert torch.allclose(torch.compile(model, fullgraph=True)(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["autograd", "exact", "reversible"])
def test_a_training_step_compiles_in_every_mode(small_model, device, mode):
    model = small_model(channels=(4, 6), timesteps=2, in_chans=1, backprop=mode, slice_bytes=1)
    x, target = torch.randn(3, 1, 8, 8).to(device), torch.tensor([0, 1, 4]).to(device)

    def loss_of(x, target):
        return trevsnn.deep_supervision_loss(model.forward_heads(x), target)

    loss = loss_of(x, target)
    reference = gradients_of(model, loss)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss_of, backend=counter)(x, target)
    assert torch.allclose(compiled, loss, rtol=1e-6)
    assert worst(gradients_of(model, compiled), reference) < 1e-5
    seen = [node.name for graph in counter.graphs for node in graph.graph.nodes]
    assert any("levels" in name for name in seen) == (mode == "autograd" and device.type != "cpu")
    assert any("heads" in name for name in seen)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["autograd", "exact"])  # reversible goes back through the same function
def test_a_step_compiled_with_its_backward_pass(small_model, device, mode):
    """Autograd calls backward passes from within the compiled function, on the CPU in the same thread."""
    model = small_model(channels=(4, 6), timesteps=2, in_chans=1, backprop=mode, slice_bytes=1)
    x, target = torch.randn(3, 1, 8, 8).to(device), torch.tensor([0, 1, 4]).to(device)

    def gradients():
        return gradients_of(model, trevsnn.deep_supervision_loss(model(x, all_heads=True), target))

    reference = gradients()
    counter = CompileCounterWithBackend("eager")
    assert worst(torch.compile(gradients, backend=counter)(), reference) < 1e-5
    traces = [node.stack_trace or "" for graph in counter.graphs for node in graph.graph.nodes]
    assert any("heads.py" in trace for trace in traces)
    # In autograd these are thresholds' and normalisations'.
    assert mode == "autograd" or not [trace for trace in traces if ", in backward" in trace]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["autograd", "exact"])
def test_one_graph_of_a_training_step_is_refused_where_it_would_be_no_faster(small_model, device, mode):
    model = small_model(channels=(4, 6), timesteps=2, in_chans=1, backprop=mode)
    x = torch.randn(3, 1, 8, 8, device=device)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    if mode == "autograd" and device.type != "cpu":
        assert torch.allclose(compiled(x), model(x), rtol=1e-5, atol=1e-6)
        return
    with pytest.raises(torch._dynamo.exc.Unsupported, match="trevsnn runs its training passes as they are, except"):
        compiled(x)


@pytest.mark.filterwarnings("ignore")
def test_compiled_exact_keeps_no_more_than_eager(small_model, device):
    """Whatever a version of PyTorch says of exporting under its compiler."""
    model = small_model(channels=(4, 6), timesteps=2, in_chans=1)
    x = torch.randn(3, 1, 8, 8, device=device)

    def kept(forward):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            forward(x)
        return sum(sizes)

    assert kept(torch.compile(model, backend="eager")) == kept(model)
    model.set_backprop("autograd")
    assert kept(model) > 0
