"""The network: agreement of its three modes, what it keeps in memory, and its parts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import trevsnn
from conftest import gradients, worst
from helpers import loss_of
from trevsnn import TRevSNNConfig
from trevsnn.network.spike import spike
from trevsnn.reversible import unroll


@settings(max_examples=12)
@given(
    timesteps=st.integers(1, 9),
    size=st.sampled_from([(8, 8), (9, 11), (16, 16)]),
    kernel_size=st.sampled_from([3, 5]),
    encoding=st.sampled_from(["shared", "grouped", "event"]),
    encoder_stride=st.sampled_from([1, 2, 4]),
    channels=st.sampled_from([(4, 6), (4, 6, 8), (4, 6, 8, 8)]),
    alpha=st.floats(-0.9, 0.9),
    links=st.sampled_from(["adjacent", "all"]),
    alphas=st.sampled_from(["learned", "one"]),
    readout=st.sampled_from(["last", "mean"]),
    slope=st.sampled_from([1.0, 0.25]),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_modes_agree_for_any_configuration(
    device64,
    timesteps,
    size,
    kernel_size,
    encoding,
    encoder_stride,
    channels,
    alpha,
    links,
    alphas,
    readout,
    slope,
    channels_last,
    seed,
):
    from conftest import lively

    event = encoding == "event"
    torch.manual_seed(seed)
    config = TRevSNNConfig(
        channels=channels, timesteps=timesteps, kernel_size=kernel_size, num_classes=3, encoder_stride=encoder_stride,
        links=links, alphas=alphas, **({"input": "event", "readout": readout} if event else {"encoding": encoding}),
    )  # fmt: skip
    model = lively(trevsnn.TRevSNN(config).double(), alpha).to(device64).train()
    model.set_slope(slope)
    x = torch.randn(2, *((timesteps, 2) if event else (3,)), *size, dtype=torch.float64)
    x = x.to(device64).requires_grad_()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    target = torch.randint(3, (2,)).to(device64)
    found, inputs, logits = {}, {}, {}
    for mode in ("autograd", "exact"):
        model.set_backprop(mode)
        x.grad = None
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
        heads = model.forward_heads(x)
        found[mode] = gradients(model, trevsnn.deep_supervision_loss(heads, target))
        inputs[mode], logits[mode] = x.grad.clone(), heads
    assert all(torch.equal(a, b) for a, b in zip(logits["exact"], logits["autograd"], strict=True))
    # A map of which BatchNorm sees no variation (one position, or all alike) has a gradient of zero, of which rounding
    # leaves up to 1 / sqrt(eps) = 316 units in the last place of its terms: nothing to be 1e-12 of itself.
    floor = 0.1 * max(float(g.norm()) for g in found["autograd"].values())
    for name, reference in found["autograd"].items():
        assert (found["exact"][name] - reference).norm() <= 1e-12 * max(float(reference.norm()), floor)
    assert (inputs["exact"] - inputs["autograd"]).norm() <= 1e-12 * max(float(inputs["autograd"].norm()), floor)


def test_reversible_agrees_at_four_steps_and_refuses_at_sixteen(small_model, device):
    x, target = torch.randn(3, 1, 16, 16).to(device), torch.randint(5, (3,)).to(device)
    model = small_model(timesteps=4, in_chans=1)
    found = {}
    for mode in ("autograd", "reversible"):
        model.set_backprop(mode)
        found[mode] = gradients(model, loss_of(model, x, target))
    assert worst(found["reversible"], found["autograd"]) < 1e-4
    with pytest.raises(trevsnn.ReversibilityError, match="use backprop='exact'"):
        loss_of(small_model(timesteps=16, in_chans=1, backprop="reversible"), x, target).backward()


@pytest.mark.parametrize("slope", [1.0, 0.25])
@pytest.mark.parametrize("alphas", ["learned", "one"])
def test_the_mean_readout_is_the_mean_of_the_head_s_logits_of_every_state_and_no_state_is_divided(
    small_model, device, slope, alphas
):
    """In every mode to the same bits, with the gradients of the mean computed by hand."""
    model = small_model(torch.float64, input="event", timesteps=5, readout="mean", alphas=alphas)
    model.set_slope(slope)
    x, target = torch.rand(3, 5, 2, 8, 8, dtype=torch.float64).to(device), torch.tensor([0, 3, 4]).to(device)
    head = model.heads[-1]

    def by_hand():
        tops = [states[-1] for states in unroll(*model._recurrence(x))]
        each = [
            nn.functional.leaky_relu(head.classifier1(spike(top).mean((2, 3), keepdim=True)), slope) for top in tops
        ]
        return torch.stack([head.classifier2(hidden).flatten(1) for hidden in each]).mean(0)

    expected = by_hand()
    reference = gradients(model, trevsnn.deep_supervision_loss([expected], target))
    logits = {}
    for mode in trevsnn.reversible.BACKPROP_MODES:
        model.set_backprop(mode)
        (logits[mode],) = model(x, all_heads=True)
        assert worst(gradients(model, trevsnn.deep_supervision_loss([logits[mode]], target)), reference) < 1e-12
        torch.testing.assert_close(logits[mode], expected, rtol=1e-13, atol=1e-13)
        assert torch.equal(logits[mode], logits["exact"])
    torch.testing.assert_close(model.forward_time(x).mean(0), expected, rtol=1e-13, atol=1e-13)
    assert model.head_timesteps() == [range(5)]


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_temporal_loss_agrees_in_every_mode(small_model, device, mode, readout):
    model = small_model(torch.float64, input="event", timesteps=5, alpha=0.8, readout=readout)
    x, target = torch.rand(2, 5, 2, 8, 8, dtype=torch.float64).to(device), torch.tensor([0, 3]).to(device)
    found = {}
    for chosen in ("autograd", mode):
        model.set_backprop(chosen)
        logits = model.forward_time(x)
        found[chosen] = gradients(model, trevsnn.temporal_loss(logits, target))
    assert logits.shape == (5, 2, 5)
    torch.testing.assert_close(model(x), logits[-1] if readout == "last" else logits.mean(0), rtol=1e-13, atol=1e-13)
    assert worst(found[mode], found["autograd"]) < 1e-10


def test_batch_statistics_change_once_per_step_in_every_mode(small_model, device):
    x, target = torch.randn(3, 1, 8, 8).to(device), torch.randint(5, (3,)).to(device)
    buffers = {}
    for mode in ("autograd", "exact", "reversible"):
        model = small_model(timesteps=3, in_chans=1, backprop=mode)
        loss_of(model, x, target).backward()
        buffers[mode] = dict(model.named_buffers())
    for mode in ("exact", "reversible"):
        for name, buffer in buffers["autograd"].items():
            assert torch.equal(buffers[mode][name], buffer), name
    assert int(buffers["exact"]["levels.1.steps.0.below.bn.num_batches_tracked"]) == 1


@pytest.mark.parametrize(("low", "unit"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_autocast_has_the_same_forward_pass_in_every_mode(small_model, device, low, unit):
    x, target = torch.randn(4, 1, 16, 16).to(device), torch.randint(5, (4,)).to(device)
    found, losses = {}, {}
    for mode in ("autograd", "exact"):
        model = small_model(in_chans=1, backprop=mode, kernels="eager")
        with torch.autocast(device.type, low):
            losses[mode] = loss_of(model, x, target)
        found[mode] = torch.cat([grad.flatten() for grad in gradients(model, losses[mode]).values()])
    assert losses["exact"] == losses["autograd"]
    # Autograd sums the gradients of a shared weight and of the input in 16 bits, where ours are summed in float32.
    assert (found["exact"] - found["autograd"]).norm() < 4 * unit * found["autograd"].norm()


def test_gradients_of_a_few_parameters_by_autograd_grad(small_model, device, deterministic):
    model = small_model(torch.float64, in_chans=1)
    x, target = torch.randn(3, 1, 8, 8, dtype=torch.float64).to(device), torch.randint(5, (3,)).to(device)
    full = gradients(model, loss_of(model, x, target))
    names = ["encoder.stem.conv.weight", "levels.2.shared.pw2.weight", "levels.0.alphas.1"]
    chosen = [dict(model.named_parameters())[name] for name in names]
    for name, grad in zip(names, torch.autograd.grad(loss_of(model, x, target), chosen), strict=True):
        assert torch.equal(grad, full[name])


@pytest.mark.parametrize(
    ("timesteps", "expected"), [(4, [0, 1, 2, 3]), (8, [1, 3, 5, 7]), (6, [1, 2, 4, 5]), (1, [0] * 4)]
)
def test_heads_stand_after_each_quarter(small_model, device, timesteps, expected):
    model = small_model(timesteps=timesteps, in_chans=1)
    assert model.head_timesteps() == [range(t, t + 1) for t in expected]
    x = torch.randn(2, 1, 8, 8).to(device)
    heads = model.forward_heads(x)
    assert len(heads) == 4
    assert torch.equal(heads[-1], model(x))
    assert not any(torch.equal(head, heads[-1]) for head in heads[:-1])


@pytest.mark.parametrize("mode", ["exact", "reversible", "autograd"])
def test_what_is_put_around_forward_applies_to_all_heads(small_model, device, mode):
    class Autocast(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, *inputs, **options):
            with torch.autocast(device.type, torch.bfloat16):
                return self.model(*inputs, **options)

    model, seen = small_model(in_chans=1, backprop=mode), []
    model.register_forward_hook(lambda module, inputs, heads: seen.append(heads))
    x = torch.randn(2, 1, 8, 8).to(device)
    heads = Autocast(model)(x, all_heads=True)
    assert [head.dtype for head in heads] == [torch.bfloat16] * 4
    assert all(map(torch.equal, seen[0], heads))
    with torch.autocast(device.type, torch.bfloat16):
        assert all(map(torch.equal, model.forward_heads(x), heads))
    assert len(seen) == 2
    trevsnn.deep_supervision_loss(heads, torch.tensor([0, 1], device=device)).backward()
    assert all(parameter.grad is not None for parameter in model.heads.parameters())


@pytest.mark.parametrize(
    ("options", "x", "message"),
    [
        ({}, torch.zeros(2, 1, 8, 8), r"shape \(2, 1, 8, 8\); this image model takes \(B, 3, H, W\)"),
        ({}, torch.zeros(3, 8, 8), r"takes \(B, 3, H, W\)"),
        ({}, torch.zeros(0, 3, 8, 8), "none of them 0"),
        ({}, torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "convert it to floating point"),
        ({"input": "event"}, torch.zeros(2, 3, 2, 8, 8), r"takes \(B, 4, 2, H, W\)"),
    ],
)
def test_a_bad_input_is_refused(small_model, device, options, x, message):
    with pytest.raises(ValueError, match=message):
        small_model(**options)(x.to(device))
