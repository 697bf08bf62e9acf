"""The lean passes against plain autograd: same spikes, same gradients, in slices of any size and every precision."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import gradients, lively, worst
from helpers import assert_exact_is_autograd, loss_of, step_and_inputs
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.measure.tracker import LiveStorage
from trevsnn.network.lean.conv import LeanConv
from trevsnn.network.lean.step import LeanStep
from trevsnn.reversible import Neighbour, Replay
from trevsnn.reversible.precision import Precision


def recorded(monkeypatch, model):
    """What each convolution of a model's lean passes is given, by the convolution's name, as it comes."""
    calls: dict[str, list[torch.Tensor]] = {}
    names = {id(module): name for name, module in model.named_modules()}
    call = LeanConv.__call__

    def record(self, x):
        calls.setdefault(names[id(self.conv)], []).append(x.clone())
        return call(self, x)

    monkeypatch.setattr(LeanConv, "__call__", record)
    return calls


def assert_same_spikes(first, again):
    """In the second pass as in the first, and neither silent nor saturated."""
    rates = []
    for name, seen in first.items():
        if not name.endswith(("pw2", "conv")):  # what these are given is spikes
            continue
        assert len(again[name]) == len(seen)
        # Blocks go back through timesteps and slices; a link is convolved before, for the statistics of the whole batch.
        other = again[name][::-1] if name.endswith("pw2") else again[name]
        assert all(torch.equal(a, b) for a, b in zip(seen, other, strict=True)), name
        rates.append(torch.cat([s.flatten() for s in seen]).float().mean())
    assert 0.05 < float(torch.stack(rates).mean()) < 0.95  # the comparison is of something


@pytest.mark.parametrize(
    ("timesteps", "images", "dtype"),
    [
        (4, 1, torch.float64),
        (4, 7, torch.float64),
        (32, 3, torch.float64),
        (4, 3, torch.float32),
        (32, 7, torch.float32),
    ],
)
def test_exact_recomputes_the_same_spikes_and_has_the_gradients_of_autograd(
    small_model, device, monkeypatch, timesteps, images, dtype
):
    hidden = 16 * 16 * 16 * dtype.itemsize  # of the lowest level, one image
    model = small_model(dtype, timesteps=timesteps, in_chans=1, slice_bytes=images * hidden)
    x, target = torch.randn(7, 1, 16, 16, dtype=dtype).to(device), torch.randint(5, (7,)).to(device)
    model.set_backprop("autograd")
    expected = loss_of(model, x, target)
    reference = gradients(model, expected)
    model.set_backprop("exact")
    calls = recorded(monkeypatch, model)
    loss = loss_of(model, x, target)
    first = {name: list(seen) for name, seen in calls.items()}
    calls.clear()
    found = gradients(model, loss)

    assert torch.equal(loss, expected)
    assert len(first["levels.0.steps.1.project1.pw2"]) == -(-7 // images)
    assert_same_spikes(first, calls)
    # In float32, autograd's own gradients of the weights that cancel most are 1e-5 from those of float64.
    assert worst(found, reference) < (1e-12 if dtype == torch.float64 else 3e-5)
    difference = torch.cat([(found[name] - reference[name]).flatten() for name in reference])
    whole = torch.cat([grad.flatten() for grad in reference.values()])
    assert difference.norm() < (1e-13 if dtype == torch.float64 else 1e-5) * whole.norm()


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("images", [3, 7])
def test_exact_recomputes_the_same_spikes_under_autocast(small_model, device, monkeypatch, images, low):
    """16 bits round potentials to the threshold itself: two ways of rounding would soon show."""
    model = small_model(timesteps=6, in_chans=1, slice_bytes=images * 16 * 16 * 16 * low.itemsize, kernels="eager")
    x, target = torch.randn(7, 1, 16, 16).to(device), torch.randint(5, (7,)).to(device)
    found = {}
    for mode in ("autograd", "exact"):
        model.set_backprop(mode)
        calls = recorded(monkeypatch, model)
        with torch.autocast(device.type, low):
            loss = loss_of(model, x, target)
        first = {name: list(seen) for name, seen in calls.items()}
        calls.clear()
        grads = gradients(model, loss)
        monkeypatch.undo()
        found[mode] = loss.item(), torch.cat([grad.flatten() for grad in grads.values()])
    assert {spikes.dtype for name, seen in first.items() if "pw2" in name for spikes in seen} == {low}
    assert_same_spikes(first, calls)
    assert found["exact"][0] == found["autograd"][0]
    ours, reference = found["exact"][1], found["autograd"][1]
    # Autograd sums the gradients of a shared weight and of the input in 16 bits, where ours are summed in float32.
    assert (ours - reference).norm() < 4 * torch.finfo(low).eps * reference.norm()


@settings(max_examples=6)
@given(scale=st.integers(0, 20), slice_bytes=st.sampled_from([1, None]), seed=st.integers(0, 9))
def test_exact_is_finite_and_right_wherever_autograd_is_in_float16(device, scale, slice_bytes, seed):
    """Whatever the loss is multiplied by."""
    torch.manual_seed(seed)
    options = {"channels": (4, 8), "timesteps": 2, "num_classes": 5, "encoder_stride": 1, "in_chans": 1}
    config = TRevSNNConfig(**options, slice_bytes=slice_bytes, kernels="eager")
    model = lively(TRevSNN(config)).to(device).train()
    x, target = torch.randn(4, 1, 8, 8).to(device), torch.randint(5, (4,)).to(device)
    found = []
    for mode in ("autograd", "exact"):
        model.set_backprop(mode)
        with torch.autocast(device.type, torch.float16):
            loss = loss_of(model, x, target)
        found.append(torch.cat([grad.flatten() for grad in gradients(model, loss * 2.0**scale).values()]) / 2.0**scale)
    reference, ours = found
    if reference.isfinite().all():
        # As without a scale, see above.
        assert (ours - reference).norm() < 4 * torch.finfo(torch.float16).eps * reference.norm()


@pytest.mark.parametrize(
    ("mode", "low"), [("exact", None), ("exact", torch.bfloat16), ("exact", torch.float16), ("reversible", None)]
)
def test_two_runs_of_one_training_step_have_the_same_bits(small_model, device, deterministic, mode, low):
    x, target = torch.randn(7, 1, 16, 16).to(device), torch.randint(5, (7,)).to(device)
    found = []
    for _ in range(2):
        model = small_model(timesteps=4, in_chans=1, backprop=mode, slice_bytes=3 * 16**3 * 4)
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        for _ in range(2):
            with torch.autocast(device.type, low, enabled=low is not None):
                loss = loss_of(model, x, target)
            grads = gradients(model, loss)
            optimizer.step()
        found.append([loss.detach(), *grads.values(), *model.parameters(), *model.buffers()])
    assert len(found[0]) > 100
    assert all(map(torch.equal, *found))


def both_passes(kind, step, shared, below, above, adjoint, precision, slice_bytes=None):
    twin = Replay(lambda below, above: step(below, [above], shared), step, shared)
    passes = twin if kind is Replay else LeanStep(step, shared, slice_bytes, "eager")
    with precision.context(), torch.no_grad():
        value, second_pass = passes.first_pass(below, above)
    sinks = torch.ones_like(below), torch.ones_like(above)
    state = torch.zeros_like(value)
    grads = {}
    neighbours = [Neighbour(seen, sink) for seen, sink in zip((below, above), sinks, strict=True)]
    for parameter, grad in second_pass(neighbours, adjoint, state):
        grads[parameter] = grads.get(parameter, 0) + grad
    return value, -state, sinks, grads


@settings(max_examples=20)
@given(
    kernel_size=st.sampled_from([1, 3, 5]),
    projection=st.booleans(),
    training=st.booleans(),
    slice_bytes=st.sampled_from([1, 5000, None]),
    seed=st.integers(0, 99),
)
def test_one_step_has_the_values_and_gradients_of_its_plain_twin(
    device64, kernel_size, projection, training, slice_bytes, seed
):
    plain_precision, dtype = Precision(device64, False, torch.bfloat16), torch.float64
    step, shared, below, above = step_and_inputs(
        dtype, kernel_size=kernel_size, projection=projection, seed=seed, device=device64
    )
    step.train(training)
    other = copy.deepcopy(step)
    adjoint = torch.randn(5, 5, 5, 6, dtype=dtype).to(device64)
    plain = both_passes(Replay, step, shared, below, above, adjoint, plain_precision)
    lean = both_passes(LeanStep, other, shared, below, above, adjoint, plain_precision, slice_bytes)
    assert torch.allclose(lean[0], plain[0], rtol=1e-13, atol=1e-14)
    assert torch.equal(lean[1], lean[0])  # what the second pass subtracts is what the first one gave
    for ours, reference in zip(lean[2], plain[2], strict=True):
        assert torch.allclose(ours, reference, rtol=1e-11, atol=1e-12)
    named = {p: name for name, p in [*step.named_parameters(), *shared.named_parameters()]}
    theirs = {named[p]: grad for p, grad in plain[3].items()}
    named = {p: name for name, p in [*other.named_parameters(), *shared.named_parameters()]}
    assert worst({named[p]: grad for p, grad in lean[3].items()}, theirs) < 1e-11
    for (name, ours), reference in zip(other.named_buffers(), step.buffers(), strict=True):
        assert torch.allclose(ours, reference, rtol=1e-14), name


@pytest.mark.parametrize(
    ("enabled", "low", "tolerance"),
    [(False, torch.bfloat16, 2e-5), (True, torch.bfloat16, 6 * 2**-8), (True, torch.float16, 6 * 2**-11)],
)
def test_one_step_in_every_precision(device, enabled, low, tolerance):
    step, shared, below, above = step_and_inputs(torch.float32, device=device)
    precision = Precision(below.device, enabled, low)
    adjoint = torch.randn(5, 5, 5, 6).to(device)
    copied = copy.deepcopy(step)
    plain = both_passes(Replay, copied, shared, below, above, adjoint, precision)
    lean = both_passes(LeanStep, step, shared, below, above, adjoint, precision)
    assert torch.equal(lean[0], plain[0])
    assert lean[0].dtype == torch.float32
    for ours, reference in zip(lean[2], plain[2], strict=True):
        assert (ours - reference).norm() <= tolerance * (reference - 1).norm()
    theirs = dict(zip([*copied.parameters()], [*step.parameters()], strict=True))
    for parameter, reference in plain[3].items():
        ours = lean[3][theirs.get(parameter, parameter)]
        assert ours.dtype == torch.float32
        assert (ours - reference).norm() <= tolerance * reference.norm() + tolerance


def test_frozen_weights_get_no_gradient_and_the_others_theirs(small_model, device):
    model = small_model(torch.float64, in_chans=1)
    for name, parameter in model.named_parameters():
        if "gamma" in name or "pw1.weight" in name or "steps.0.below.bn" in name or "shared.dw2" in name:
            parameter.requires_grad_(False)
    x, target = torch.randn(3, 1, 16, 16, dtype=torch.float64).to(device), torch.randint(5, (3,)).to(device)
    assert_exact_is_autograd(model, x, target)


def test_a_second_backward_pass_is_refused_with_what_to_do(small_model, device):
    model = small_model(in_chans=1)
    loss = loss_of(model, torch.randn(2, 1, 8, 8, device=device), torch.tensor([0, 1], device=device))
    loss.backward(retain_graph=True)
    with pytest.raises(
        RuntimeError, match=r"states were freed as it went: run the forward pass again, or use backprop='autograd'"
    ):
        loss.backward()


@pytest.mark.parametrize("event", [False, True])
def test_nothing_large_outlives_the_backward_pass_with_the_loss(small_model, device, event):
    model = small_model(**({"input": "event", "timesteps": 3} if event else {"in_chans": 1}))
    x = torch.randn((2, 3, 2, 16, 16) if event else (2, 1, 16, 16), device=device)
    with LiveStorage([x, *model.parameters(), *model.buffers()]) as tracker:
        loss = model.forward_heads(x)[-1].sum()
        loss.backward()
        kept = tracker.live(without=[p.grad for p in model.parameters() if p.grad is not None])
    assert kept["states"] == kept["adjoints"] == kept["codes"] == kept["encoder"] == 0


def test_gradients_add_up_over_passes(small_model, device):
    model = small_model(torch.float64, in_chans=1)
    x, target = torch.randn(2, 1, 8, 8, dtype=torch.float64).to(device), torch.tensor([0, 1], device=device)
    model.eval()  # the same statistics twice
    once = gradients(model, loss_of(model, x, target))
    loss_of(model, x, target).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, 2 * once[name], rtol=1e-14), name
