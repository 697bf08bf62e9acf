"""The lean passes against plain autograd: same spikes, same gradients, in slices of any size and every precision."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import ScaledStdConv2d
from torch import nn

from conftest import gradients, lively, worst
from helpers import loss_of, step_and_inputs
from trevsnn.measure.tracker import LiveStorage
from trevsnn.network.lean.conv import LeanConv
from trevsnn.network.lean.step import LeanStep, is_lean
from trevsnn.network.norm import BatchNorm
from trevsnn.reversible import Neighbour, Replay
from trevsnn.reversible.precision import Precision

CPU = torch.device("cpu")
PLAIN = Precision(CPU, False, torch.bfloat16)


@pytest.mark.parametrize("timesteps", [4, 16, 32])
@pytest.mark.parametrize("images", [1, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_exact_recomputes_the_same_spikes_and_has_the_gradients_of_autograd(
    small_model, monkeypatch, timesteps, images, dtype
):
    hidden = 16 * 16 * 16 * dtype.itemsize  # of the lowest level, one image
    model = small_model(dtype, timesteps=timesteps, in_chans=1, slice_bytes=images * hidden)
    x, target = torch.randn(7, 1, 16, 16, dtype=dtype), torch.randint(5, (7,))
    model.set_backprop("autograd")
    expected = loss_of(model, x, target)
    reference = gradients(model, expected)
    model.set_backprop("exact")
    calls: dict[str, list[torch.Tensor]] = {}
    names = {id(module): name for name, module in model.named_modules()}
    call = LeanConv.__call__

    def record(self, x):
        calls.setdefault(names[id(self.conv)], []).append(x.clone())
        return call(self, x)

    monkeypatch.setattr(LeanConv, "__call__", record)
    loss = loss_of(model, x, target)
    first = {name: list(seen) for name, seen in calls.items()}
    calls.clear()
    found = gradients(model, loss)

    assert torch.equal(loss, expected)
    assert len(first["levels.0.steps.1.project1.pw2"]) == -(-7 // images)
    rates = []
    for name, seen in first.items():
        if not name.endswith(("pw2", "conv")):  # what these are given is spikes
            continue
        assert len(calls[name]) == len(seen)
        # Blocks go back through timesteps and slices; a link is convolved before, for the statistics of the whole batch.
        again = calls[name][::-1] if name.endswith("pw2") else calls[name]
        assert all(torch.equal(a, b) for a, b in zip(seen, again, strict=True)), name
        rates.append(torch.cat([s.flatten() for s in seen]).double().mean())
    assert 0.05 < float(torch.stack(rates).mean()) < 0.95  # the comparison is of something
    # In float32, autograd's own gradients of the weights that cancel most are 1e-5 from those of float64.
    assert worst(found, reference) < (1e-12 if dtype == torch.float64 else 3e-5)
    difference = torch.cat([(found[name] - reference[name]).flatten() for name in reference])
    whole = torch.cat([grad.flatten() for grad in reference.values()])
    assert difference.norm() < (1e-13 if dtype == torch.float64 else 1e-5) * whole.norm()


def assert_exact_is_autograd(model, x, target):
    """All gradients, in float64."""
    found = {}
    for mode in ("autograd", "exact"):
        model.set_backprop(mode)
        found[mode] = gradients(model, loss_of(model, x, target))
    assert worst(found["exact"], found["autograd"]) < 1e-12


def both_passes(kind, step, shared, below, above, adjoint, precision, slice_bytes=None):
    twin = Replay(lambda below, above: step(below, [above], shared), step, shared)
    passes = twin if kind is Replay else LeanStep(step, shared, slice_bytes)
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
def test_one_step_has_the_values_and_gradients_of_its_plain_twin(kernel_size, projection, training, slice_bytes, seed):
    dtype = torch.float64
    step, shared, below, above = step_and_inputs(dtype, kernel_size=kernel_size, projection=projection, seed=seed)
    step.train(training)
    other = copy.deepcopy(step)
    adjoint = torch.randn(5, 5, 5, 6, dtype=dtype)
    plain = both_passes(Replay, step, shared, below, above, adjoint, PLAIN)
    lean = both_passes(LeanStep, other, shared, below, above, adjoint, PLAIN, slice_bytes)
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
def test_one_step_in_every_precision(enabled, low, tolerance):
    step, shared, below, above = step_and_inputs(torch.float32)
    precision = Precision(CPU, enabled, low)
    adjoint = torch.randn(5, 5, 5, 6)
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


def test_changed_modules_and_hooks_are_replayed_and_right(small_model):
    """Whoever changes a module gets the general way, not a wrong result of the lean one."""

    class Noisy(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 1.5

    model = small_model(torch.float64, in_chans=1)
    step = model.levels[0].steps[1]
    assert is_lean(step, model.levels[0].shared)
    old = step.expand1.dw1
    step.expand1.dw1 = Noisy(4, 4, 3, padding=1, groups=4).double()
    step.expand1.dw1.load_state_dict(old.state_dict())
    assert not is_lean(step, model.levels[0].shared)
    rates = []
    model.levels[2].steps[0].expand1.register_forward_hook(lambda _, args, out: rates.append(out.mean().item()))
    x, target = torch.randn(3, 1, 16, 16, dtype=torch.float64), torch.randint(5, (3,))
    assert_exact_is_autograd(model, x, target)
    assert len(rates) == 3  # autograd once, exact twice
    assert len(set(rates)) == 1


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def same(kind=nn.Conv2d, inputs=4, outputs=4, kernel=3, dilation=1, **options):
    """A convolution that keeps the size of a map."""
    return kind(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation, **options)


#: By name, where in level 0's step 1 a convolution is exchanged, for which, and whether the lean way computes it. (A link's
#: bias has a gradient of 0.)
EXCHANGED = {
    "dense": ("expand1.dw1", same, True),
    "dilated": ("expand2.dw1", lambda: same(kernel=5, dilation=2, groups=4), True),
    "groups of two": ("project1.dw2", lambda: same(groups=2), True),
    "no bias": ("project1.dw2", lambda: same(groups=4, bias=False), True),
    "standardised": ("project1.dw2", lambda: same(ScaledStdConv2d, groups=4), True),
    "oblong": ("expand1.dw1", lambda: nn.Conv2d(4, 4, (5, 7), padding=(2, 3), groups=4), True),
    "groups in PW1": ("expand1.pw1", lambda: nn.Conv2d(4, 16, 1, groups=2), True),
    "groups in PW2": ("project1.pw2", lambda: nn.Conv2d(16, 4, 1, groups=4), True),
    "3 x 3 in PW2": ("project1.pw2", lambda: same(inputs=16), True),
    "dilated link": ("above.conv", lambda: same(inputs=8, dilation=2, bias=False), True),
    "strided link": ("above.conv", lambda: nn.Conv2d(8, 4, 3, stride=2, bias=False), True),
    "unpadded link with groups": ("above.conv", lambda: nn.Conv2d(8, 4, 3, groups=2, bias=False), True),
    "reflecting": ("expand1.dw1", lambda: same(kernel=5, groups=4, padding_mode="reflect"), False),
    "circular link": ("above.conv", lambda: same(inputs=8, padding_mode="circular", bias=False), False),
    "padding by name": ("expand2.dw1", lambda: nn.Conv2d(4, 4, 4, padding="same", groups=4), False),
    "link without padding": ("above.conv", lambda: nn.Conv2d(8, 4, 3, padding="valid", bias=False), False),
    "of a class of its own": ("project1.dw2", lambda: same(Doubled, groups=4), False),
    "to one pixel": ("project1.dw2", lambda: nn.Conv2d(4, 4, 16), False),  # which is added to all
    "to one channel": ("project1.dw2", lambda: same(outputs=1), False),
    "link to one channel": ("above.conv", lambda: same(inputs=8, outputs=1, bias=False), False),
}


def exchanged(small_model, name, dtype):
    place, make, lean = EXCHANGED[name]
    model = small_model(channels=(4, 8, 8), in_chans=1, timesteps=3, alpha=0.9, slice_bytes=4096)
    half, _, conv = place.partition(".")
    part = getattr(model.levels[0].steps[1], half)
    setattr(part, conv, make())
    if conv == "conv":
        part.bn = BatchNorm(part.conv.out_channels)
    lively(model.to(dtype), 0.9)
    assert is_lean(model.levels[0].steps[1], model.levels[0].shared) == lean
    return model


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", EXCHANGED)
@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_an_exchanged_convolution_has_the_gradient_of_autograd(small_model, name, mode):
    model = exchanged(small_model, name, torch.float64)
    x, target = torch.randn(3, 1, 16, 16, dtype=torch.float64), torch.randint(5, (3,))
    model.set_backprop("autograd")
    expected = loss_of(model, x, target)
    reference = gradients(model, expected)
    model.set_backprop(mode)
    loss = loss_of(model, x, target)
    assert torch.allclose(loss, expected, rtol=1e-14)
    assert worst(gradients(model, loss), reference) < 1e-12


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", EXCHANGED)
def test_an_exchanged_convolution_has_the_gradient_of_autograd_in_bfloat16(small_model, name):
    """Spikes are the same; gradients are sums of many products, each rounded to 8 bits in either way, in other orders."""
    model = exchanged(small_model, name, torch.float32)
    x, target = torch.randn(3, 1, 16, 16), torch.randint(5, (3,))
    found = {}
    for mode in ("autograd", "exact"):
        model.set_backprop(mode)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, x, target)
        found[mode] = loss.item(), gradients(model, loss)
    assert found["exact"][0] == found["autograd"][0]
    ours, reference = (torch.cat([g.flatten() for g in grads.values()]) for _, grads in found.values())
    assert (ours - reference).norm() <= 4 * 2**-8 * reference.norm()  # it is 2^-8; a wrong part shows as a tenth


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("below.bn", nn.Identity()),
        ("above.bn", nn.BatchNorm2d(4)),
        ("expand1.dw1", nn.Identity()),
        ("project1.pw2", nn.Sequential(nn.Conv2d(16, 4, 1))),
    ],
)
def test_a_part_in_the_place_of_another_is_replayed(small_model, place, part):
    model = small_model(channels=(4, 4, 8), in_chans=1, alpha=0.9).double()
    level = model.levels[1]
    half, _, name = place.partition(".")
    setattr(level.steps[1].get_submodule(half), name, part.double())
    assert not is_lean(level.steps[1], level.shared)
    x, target = torch.randn(3, 1, 16, 16, dtype=torch.float64), torch.randint(5, (3,))
    assert_exact_is_autograd(model, x, target)


def test_frozen_weights_get_no_gradient_and_the_others_theirs(small_model):
    model = small_model(torch.float64, in_chans=1)
    for name, parameter in model.named_parameters():
        if "gamma" in name or "pw1.weight" in name or "steps.0.below.bn" in name or "shared.dw2" in name:
            parameter.requires_grad_(False)
    x, target = torch.randn(3, 1, 16, 16, dtype=torch.float64), torch.randint(5, (3,))
    assert_exact_is_autograd(model, x, target)


def test_a_second_backward_pass_is_refused_with_what_to_do(small_model):
    model = small_model(in_chans=1)
    loss = loss_of(model, torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))
    loss.backward(retain_graph=True)
    with pytest.raises(
        RuntimeError, match=r"states were freed as it went: run the forward pass again, or use backprop='autograd'"
    ):
        loss.backward()


@pytest.mark.parametrize("event", [False, True])
def test_nothing_large_outlives_the_backward_pass_with_the_loss(small_model, event):
    model = small_model(**({"input": "event", "timesteps": 3} if event else {"in_chans": 1}))
    x = torch.randn((2, 3, 2, 16, 16) if event else (2, 1, 16, 16))
    with LiveStorage([x, *model.parameters(), *model.buffers()]) as tracker:
        loss = model.forward_heads(x)[-1].sum()
        loss.backward()
        kept = tracker.live(without=[p.grad for p in model.parameters() if p.grad is not None])
    assert kept["states"] == kept["adjoints"] == kept["codes"] == kept["encoder"] == 0


def test_gradients_add_up_over_passes(small_model):
    model = small_model(torch.float64, in_chans=1)
    x, target = torch.randn(2, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1])
    model.eval()  # the same statistics twice
    once = gradients(model, loss_of(model, x, target))
    loss_of(model, x, target).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, 2 * once[name], rtol=1e-14), name
