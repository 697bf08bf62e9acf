"""The network: agreement of its three modes, what it keeps in memory, and its parts."""

import gc
import math
import weakref

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import trevsnn
from conftest import gradients, worst
from trevsnn import TRevSNNConfig
from trevsnn.network.blocks import bound_alpha_
from trevsnn.network.encoders import AnnealedLeakyReLU, slope_at
from trevsnn.network.spike import spike
from trevsnn.reversible import unroll

PARAMETERS = {
    "trevsnn_tiny": 17_203_024, "trevsnn_small": 32_330_128, "trevsnn_event_tiny": 10_220_165,
    "trevsnn_digits": 467_256, "trevsnn_fashion_mnist": 751_816, "trevsnn_n_mnist": 914_380, "trevsnn_nano": 2_089_448,
}  # fmt: skip


def loss_of(model, x, target):
    return trevsnn.deep_supervision_loss(model.forward_heads(x), target)


@settings(max_examples=12)
@given(
    timesteps=st.integers(1, 9),
    size=st.sampled_from([(8, 8), (9, 11), (16, 16)]),
    kernel_size=st.sampled_from([3, 5]),
    encoding=st.sampled_from(["shared", "grouped", "event"]),
    encoder_stride=st.sampled_from([1, 2, 4]),
    channels=st.sampled_from([(4, 6), (4, 6, 8), (4, 6, 8, 8)]),
    alpha=st.floats(-0.9, 0.9),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_modes_agree_for_any_configuration(
    timesteps, size, kernel_size, encoding, encoder_stride, channels, alpha, channels_last, seed
):
    from conftest import lively

    event = encoding == "event"
    torch.manual_seed(seed)
    config = TRevSNNConfig(
        channels=channels, timesteps=timesteps, kernel_size=kernel_size, num_classes=3, encoder_stride=encoder_stride,
        **({"input": "event"} if event else {"encoding": encoding}),
    )  # fmt: skip
    model = lively(trevsnn.TRevSNN(config).double(), alpha).train()
    x = torch.randn(2, *((timesteps, 2) if event else (3,)), *size, dtype=torch.float64, requires_grad=True)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    target = torch.randint(3, (2,))
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


def test_reversible_agrees_at_four_steps_and_refuses_at_sixteen(small_model):
    x, target = torch.randn(3, 1, 16, 16), torch.randint(5, (3,))
    model = small_model(timesteps=4, in_chans=1)
    found = {}
    for mode in ("autograd", "reversible"):
        model.set_backprop(mode)
        found[mode] = gradients(model, loss_of(model, x, target))
    assert worst(found["reversible"], found["autograd"]) < 1e-4
    with pytest.raises(trevsnn.ReversibilityError, match="use backprop='exact'"):
        loss_of(small_model(timesteps=16, in_chans=1, backprop="reversible"), x, target).backward()


@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_temporal_loss_agrees_in_every_mode(small_model, mode):
    model = small_model(torch.float64, input="event", timesteps=5, alpha=0.8)
    x, target = torch.rand(2, 5, 2, 8, 8, dtype=torch.float64), torch.tensor([0, 3])
    found = {}
    for chosen in ("autograd", mode):
        model.set_backprop(chosen)
        logits = model.forward_time(x)
        found[chosen] = gradients(model, trevsnn.temporal_loss(logits, target))
    assert logits.shape == (5, 2, 5)
    assert torch.equal(logits[-1], model(x))
    assert worst(found[mode], found["autograd"]) < 1e-10


def test_temporal_loss_averages_over_time():
    logits = torch.randn(3, 2, 4, dtype=torch.float64)
    target = torch.tensor([1, 2])
    expected = sum(torch.nn.functional.cross_entropy(step, target) for step in logits) / 3
    assert torch.allclose(trevsnn.temporal_loss(logits, target, regulariser=0.0), expected, rtol=1e-14)
    pulled = trevsnn.temporal_loss(logits, target, regulariser=0.25)
    assert torch.allclose(pulled, 0.75 * expected + 0.25 * (logits - 1).pow(2).mean(), rtol=1e-14)


def test_deep_supervision_weighs_the_heads():
    heads = [torch.randn(2, 4, dtype=torch.float64) for _ in range(4)]
    target = torch.tensor([1, 2])
    losses = [torch.nn.functional.cross_entropy(h, target, label_smoothing=0.1) for h in heads]
    expected = sum((i + 1) / 4 * loss for i, loss in enumerate(losses)) + losses[3]
    assert torch.allclose(trevsnn.deep_supervision_loss(heads, target), expected, rtol=1e-14)


class LiveBytes(TorchDispatchMode):
    """Count the bytes of all storages made under it that are still alive, other than those of ``known`` tensors."""

    def __init__(self, known):
        super().__init__()
        self.alive = {}
        self.known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.alive[storage._cdata] = (weakref.ref(storage), storage.nbytes())
        return out

    def total(self):
        gc.collect()
        return sum(nbytes for ref, nbytes in self.alive.values() if ref() is not None)


def live_after_forward(model, x):
    with LiveBytes([x, *model.parameters(), *model.buffers()]) as tracker:
        heads = model.forward_heads(x)
        return tracker.total(), heads


@pytest.mark.parametrize("encoding", ["shared", "grouped", "event"])
@pytest.mark.parametrize("mode", ["reversible", "exact", "autograd"])
def test_live_bytes_after_the_forward_pass(small_model, mode, encoding):
    event = encoding == "event"
    totals, elements = {}, 0
    for timesteps in (4, 8, 16):
        options = {"input": "event"} if event else {"encoding": encoding}
        # Alphas of 1 need no float anchors, which count apart.
        model = small_model(timesteps=timesteps, alpha=1.0, backprop=mode, **options)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "alphas" in name:
                    parameter.fill_(1.0)
        shape = (4, timesteps, 2, 32, 32) if event else (4, 3, 32, 32)
        totals[timesteps], heads = live_after_forward(model, torch.randn(shape))
        elements = 4 * (4 * 32**2 + 8 * 16**2 + 8 * 8**2 + 12 * 8**2)
        assert len(heads) == (1 if event else 4)
    for few, many in ((4, 8), (8, 16)):
        slope = (totals[many] - totals[few]) / (many - few)
        # Mean and variance of each link are kept, whatever the batch: the channels of what they lead to.
        statistics = 2 * 4 * (8 + 8 + 12 + 4 + 8 + 8)
        if mode == "reversible":
            assert slope == statistics
        elif mode == "exact":
            assert 8 * (slope - statistics) / elements == 2
        else:
            assert slope > 4 * elements  # the plain graph keeps many floats an element: the tracker does see


def test_batch_statistics_change_once_per_step_in_every_mode(small_model):
    x, target = torch.randn(3, 1, 8, 8), torch.randint(5, (3,))
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
def test_autocast_has_the_same_forward_pass_in_every_mode(small_model, low, unit):
    x, target = torch.randn(4, 1, 16, 16), torch.randint(5, (4,))
    found, losses = {}, {}
    for mode in ("autograd", "exact"):
        model = small_model(in_chans=1, backprop=mode)
        with torch.autocast("cpu", low):
            losses[mode] = loss_of(model, x, target)
        found[mode] = torch.cat([grad.flatten() for grad in gradients(model, losses[mode]).values()])
    assert losses["exact"] == losses["autograd"]
    # Autograd sums the gradients of a shared weight and of the input in 16 bits, where ours are summed in float32.
    assert (found["exact"] - found["autograd"]).norm() < 4 * unit * found["autograd"].norm()


def test_gradients_of_a_few_parameters_by_autograd_grad(small_model):
    model = small_model(torch.float64, in_chans=1)
    x, target = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.randint(5, (3,))
    full = gradients(model, loss_of(model, x, target))
    names = ["encoder.stem.conv.weight", "levels.2.shared.pw2.weight", "levels.0.alphas.1"]
    chosen = [dict(model.named_parameters())[name] for name in names]
    for name, grad in zip(names, torch.autograd.grad(loss_of(model, x, target), chosen), strict=True):
        assert torch.equal(grad, full[name])


def test_every_weight_has_one_name(small_model):
    state = small_model(timesteps=6).state_dict()
    assert len({tensor.data_ptr() for tensor in state.values() if tensor.numel()}) == len(state)


@pytest.mark.parametrize("name", trevsnn.zoo.presets.PRESETS)
def test_presets(name):
    model = trevsnn.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    through_timm = timm.create_model(name, num_classes=7, backprop="reversible")
    assert through_timm.config == TRevSNNConfig(
        **{**trevsnn.zoo.presets.PRESETS[name], "num_classes": 7, "backprop": "reversible"}
    )
    assert through_timm.num_classes == 7


@pytest.mark.parametrize(
    ("timesteps", "expected"), [(4, [0, 1, 2, 3]), (8, [1, 3, 5, 7]), (6, [1, 2, 4, 5]), (1, [0] * 4)]
)
def test_heads_stand_after_each_quarter(small_model, timesteps, expected):
    model = small_model(timesteps=timesteps, in_chans=1)
    assert model.head_timesteps() == expected
    x = torch.randn(2, 1, 8, 8)
    heads = model.forward_heads(x)
    assert len(heads) == 4
    assert torch.equal(heads[-1], model(x))
    assert not any(torch.equal(head, heads[-1]) for head in heads[:-1])


def test_model_of_the_last_head_and_rates_are_those_of_the_states(small_model):
    model = small_model(in_chans=1).eval()
    x = torch.randn(2, 1, 8, 8)
    logits, rates = model.forward_with_rates(x)
    assert torch.equal(logits, model(x))
    assert torch.equal(logits, model.forward_heads(x)[-1])
    assert rates.states_LT.shape == (4, 4)
    *_, states = unroll(*model._recurrence(x))
    assert torch.allclose(rates.states_LT[:, -1], torch.stack([spike(s).double().mean() for s in states]))


@pytest.mark.parametrize("slice_bytes", [None, 1])
def test_rates_of_hidden_neurons_are_those_of_their_layers(small_model, slice_bytes):
    """Each block's own, also where the batch is computed in slices."""
    model = small_model(in_chans=1, slice_bytes=slice_bytes).eval()
    x = torch.randn(2, 1, 8, 8)
    spikes = {}
    for level in range(4):
        for step in range(4):
            for n in (1, 2):
                layer = model.get_submodule(f"levels.{level}.steps.{step}.expand{n}")
                keep = spikes.setdefault((level, step, n - 1), [])
                layer.register_forward_hook(lambda _, inputs, out, keep=keep: keep.append(out.double()))
    _, rates = model.forward_with_rates(x)
    assert rates.hidden_LTN.shape == (4, 4, 2)
    for place, parts in spikes.items():
        assert len(parts) == (1 if slice_bytes is None else 2)
        assert float(rates.hidden_LTN[place]) == pytest.approx(float(torch.cat(parts).mean()))
    assert rates.hidden_LTN.unique().numel() > 8
    states, first, second = zip(*rates.by_level(), strict=True)
    assert (*states, *first, *second) == pytest.approx(
        [*rates.states_LT.mean(1).tolist(), *rates.hidden_LTN.mean(1).T.flatten().tolist()]
    )


def test_slope_reaches_every_layer(small_model):
    model = small_model(in_chans=1)
    x = torch.randn(2, 1, 8, 8)
    linear = model(x)
    model.set_slope(0.25)
    slopes = [m.slope for m in model.modules() if isinstance(m, AnnealedLeakyReLU)]
    assert slopes == [0.25, 0.25]  # encoder and last head
    assert not torch.equal(model(x), linear)
    v = torch.tensor([-2.0, 3.0])
    assert model.encoder.stem.activation(v).tolist() == [-0.5, 3.0]
    assert [slope_at(e, 4) for e in (0, 2, 4, 9)] == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert slope_at(0, 0) == 1.0
    assert slope_at(1, 4) == pytest.approx((1 - math.cos(math.pi / 4)) / 2)


def test_alpha_keeps_away_from_zero_with_its_sign(small_model):
    alpha = torch.nn.Parameter(torch.tensor([0.5, 1e-5, -1e-5, 0.0, -0.7]))
    bound_alpha_(alpha)
    assert alpha.tolist() == pytest.approx([0.5, 1e-3, -1e-3, 1e-3, -0.7])
    model = small_model(in_chans=1)
    stuck = model.levels[0].alphas[0]
    torch.nn.init.zeros_(stuck)
    first, second = (model(torch.randn(2, 1, 8, 8)).square().sum() for _ in range(2))
    assert stuck.flatten().tolist() == pytest.approx([1e-3] * 4)
    (first + second).backward()  # two forward passes before a backward pass
    assert (stuck.grad != 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": (8,)}, "two levels at least"),
        ({"channels": (8, 0, 8, 8)}, r"channels\[1\] is 0"),
        ({"channels": 64}, "give a list of positive integers"),
        ({"timesteps": 0}, "timesteps is 0; it must be a positive integer"),
        ({"timesteps": 2.5}, "timesteps is 2.5"),
        ({"kernel_size": 4}, "kernel_size is 4; it must be odd"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"in_chans": 0}, "in_chans is 0"),
        ({"input": "video"}, "input is 'video'; it must be one of image, event"),
        ({"encoding": "both"}, "must be one of shared, grouped"),
        ({"encoder_stride": 3}, "encoder_stride is 3; it must be one of 4, 2, 1"),
        ({"backprop": "magic"}, "must be one of exact, reversible, autograd"),
        ({"input": "event", "encoding": "grouped"}, "is for images"),
    ],
)
def test_a_bad_config_is_refused_in_one_sentence(change, message):
    with pytest.raises(ValueError, match=message) as error:
        TRevSNNConfig(**change)
    assert "\n" not in str(error.value)


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
def test_a_bad_input_is_refused(small_model, options, x, message):
    with pytest.raises(ValueError, match=message):
        small_model(**options)(x)


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="there is no model 'trevsnn_huge'; there are trevsnn_tiny"):
        trevsnn.create_model("trevsnn_huge")
    with pytest.raises(ValueError, match="has no option depth; it has channels"):
        trevsnn.create_model("trevsnn_tiny", depth=3)
    with pytest.raises(ValueError, match="no pretrained weights for trevsnn_nano"):
        timm.create_model("trevsnn_nano", pretrained=True)
    with pytest.raises(ValueError, match="must be one of"):
        trevsnn.create_model("trevsnn_nano").set_backprop("fast")  # type: ignore[arg-type]
