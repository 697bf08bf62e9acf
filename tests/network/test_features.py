"""The maps of chosen levels: values and gradients of the plain recurrence, exact's memory, weights of a classifier."""

from itertools import chain, combinations

import pytest
import torch
import torch.distributed as dist
from test_model_memory import LiveBytes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from conftest import gradients, worst
from trevsnn import FeatureNet, TRevSNN
from trevsnn.network.spike import spike
from trevsnn.reversible import BACKPROP_MODES, unroll

SUBSETS = list(chain.from_iterable(combinations(range(3), n) for n in (1, 2, 3)))
LOSSES = [
    lambda maps: sum((m * m).mean() for m in maps),
    lambda maps: sum((i + 1) * m.mean((2, 3)).logsumexp(1).sum() for i, m in enumerate(maps)),
    lambda maps: (maps[0] * maps[0].roll(1, 0)).sum(),  # of one map alone
]


def inputs(timesteps, event, device):
    torch.manual_seed(1)
    return torch.randn(2, *((timesteps, 2) if event else (3,)), 8, 8, dtype=torch.float64).to(device)


def plain_maps(model, x, levels, output):
    """By the recurrence written out, of the whole network."""
    *_, states = unroll(*model._recurrence(x), sees=model._sees)
    return [spike(states[level]) if output == "spikes" else states[level] for level in levels]


@pytest.mark.parametrize("mode", BACKPROP_MODES)
@pytest.mark.parametrize("timesteps", [1, 4])  # an odd number and an even one: each choice of levels has both outputs
@pytest.mark.parametrize("options", [{}, {"input": "event", "links": "all"}], ids=["image", "event"])
def test_gradients_are_those_of_autograd(small_model, device64, mode, timesteps, options):
    """On the whole network, for every choice of levels; its other parameters have none."""
    model = small_model(torch.float64, channels=(4, 6, 8), timesteps=timesteps, backprop="autograd", **options)
    x = inputs(timesteps, "input" in options, device64)
    for place, levels in enumerate(SUBSETS):
        output, loss_of = ("states", "spikes")[(place + timesteps) % 2], LOSSES[place % 3]
        expected = plain_maps(model, x, levels, output)
        reference = gradients(model, loss_of(expected))
        net = FeatureNet(model, levels, output)
        net.set_backprop(mode)
        found = net(x)
        assert all(map(torch.equal, found, expected))
        ours = gradients(net, loss_of(found))
        assert all(not grad.any() for name, grad in reference.items() if name not in ours)
        assert not any(grad.any() for name, grad in ours.items() if name not in reference)  # of a map no loss is of
        assert worst(*({name: them[name] for name in ours.keys() & reference} for them in (ours, reference))) < 1e-10


@pytest.mark.parametrize("output", ["states", "spikes"])
@pytest.mark.parametrize("mode", ["exact", "autograd"])
def test_live_bytes_of_each_further_timestep(small_model, device, mode, output):
    """Two bits for each element of a state, mean and variance of each link, and the bounded alphas, as in a classifier."""
    totals = {}
    for timesteps in (2, 4):
        model = small_model(timesteps=timesteps, alpha=1.0, backprop=mode)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "alphas" in name:
                    parameter.fill_(1.0)  # needs no float anchors, which count apart
        net = FeatureNet(model, (1, 2, 3), output)
        x = torch.randn(4, 3, 16, 16, device=device)
        with LiveBytes([x, *net.parameters(), *net.buffers()]) as tracker:
            maps = net(x)
            totals[timesteps] = tracker.total()
        assert len(maps) == 3
    elements = 4 * (4 * 16**2 + 8 * 8**2 + 8 * 4**2 + 12 * 4**2)
    channels = 2 * 4 * (8 + 8 + 12 + 4 + 8 + 8) + 4 * (4 + 8 + 8 + 12)
    slope = (totals[4] - totals[2]) / 2
    if mode == "exact":
        assert 8 * (slope - channels) / elements == 2
    else:
        assert slope > 4 * elements


@pytest.mark.parametrize("links", ["adjacent", "all"])
@pytest.mark.parametrize("timesteps", [1, 2, 4])
def test_no_parameter_is_unused(small_model, device, timesteps, links):
    """In autograd, where one that nothing depends on has no gradient at all."""
    model = small_model(channels=(4, 6, 6, 8), timesteps=timesteps, links=links, backprop="autograd")
    x = torch.randn(2, 3, 8, 8, device=device)
    for level in range(4):
        net = FeatureNet(model, (level,), "spikes")
        names = dict(net.named_parameters()).keys()
        assert gradients(net, sum(m.square().sum() for m in net(x))).keys() == names
        assert not any(name.startswith("heads") for name in names)
        assert names < dict(model.named_parameters()).keys()


@pytest.mark.filterwarnings("ignore:Grad strides")
@pytest.mark.parametrize("mode", BACKPROP_MODES)
def test_distributed_training_waits_for_no_parameter(small_model, mode, tmp_path):
    net = FeatureNet(small_model(timesteps=2, backprop=mode), (0, 1)).to("cpu")
    x = torch.randn(2, 3, 8, 8)
    reference = gradients(net, sum(m.square().mean() for m in net(x)))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(net)
        for _ in range(2):  # the second one would wait for what the first did not have
            assert worst(gradients(net, sum(m.square().mean() for m in wrapped(x))), reference) < 1e-6
    finally:
        dist.destroy_process_group()


def test_weights_of_a_classifier_load(small_model, device, tmp_path):
    model, other = small_model(seed=1).eval(), small_model(seed=2).eval()
    x = torch.randn(2, 3, 8, 8, device=device)
    expected = plain_maps(model, x, (0, 1), "states")
    net = FeatureNet(other, (0, 1))
    assert not torch.equal(net(x)[1], expected[1])
    net.load_state_dict(model.state_dict())
    assert all(map(torch.equal, net(x), expected))
    assert {"levels.3.steps.3.gamma", "levels.3.alphas.2", "levels.2.alphas.2"} <= net.left_out
    detector = nn.Sequential(FeatureNet(other, (0, 1)))
    detector.load_state_dict({f"0.{name}": value for name, value in model.state_dict().items()})
    assert all(map(torch.equal, detector[0](x), expected))
    model.save_pretrained(tmp_path)
    assert all(map(torch.equal, FeatureNet(TRevSNN.from_pretrained(tmp_path), 2)(x.cpu()), plain_maps(model.cpu(), x.cpu(), (2, 3), "states")))  # fmt: skip
    with pytest.raises(RuntimeError, match="Unexpected key"):
        net.load_state_dict(small_model(timesteps=5).state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        net.load_state_dict({name: value for name, value in net.state_dict().items() if "encoder" not in name})


def test_the_features_are_a_copy(small_model, device):
    model = small_model().eval()
    x = torch.randn(2, 3, 8, 8, device=device)
    before = model(x)
    net = FeatureNet(model, (0,))
    assert len(model.levels[3].steps) == 4
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(model(x), before)


def test_keep_and_hooks_change_nothing(small_model, device64):
    """Kept maps of a network that is cut; and a level whose state a hook may look at, which is kept as numbers."""
    x = inputs(4, False, device64)
    model = small_model(torch.float64)
    loss_of = LOSSES[0]
    reference = gradients(net := FeatureNet(model, (0, 1), "spikes"), loss_of(net(x)))
    kept = FeatureNet(small_model(torch.float64, keep="1GB"), (0, 1), "spikes")
    assert worst(gradients(kept, loss_of(kept(x))), reference) == 0
    net.levels[1].steps[0].below.register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="states of level 0 are kept"):
        maps = net(x)
    assert worst(gradients(net, loss_of(maps)), reference) < 1e-12


def test_keep_hook_slices_autocast_and_slope_are_the_classifier_s(small_model, device):
    model = small_model(slice_bytes=1)
    model.set_slope(0.25)
    net = FeatureNet(model, 1)
    x = torch.randn(2, 3, 8, 8, device=device)
    assert torch.equal(net(x)[0], model.forward_features(x))
    with torch.autocast(device.type, torch.bfloat16):
        assert torch.equal(net(x)[0], model.forward_features(x))
    assert net.config.slice_bytes == 1
    assert net.backprop == model.backprop
    assert net.training


@pytest.mark.filterwarnings("ignore")
def test_compile_and_export(small_model, device):
    """One graph in evaluation; a training step runs as it is; the exported program is the network."""
    net = FeatureNet(small_model(channels=(4, 6), timesteps=2), (0,)).eval()
    x = torch.randn(3, 3, 8, 8).to(device)
    with torch.no_grad():
        expected = net(x)[0]
        torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="aot_eager")(x)[0], expected)
    program = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(program(x)[0], expected)
    reference = gradients(net, net(x)[0].square().mean())
    torch._dynamo.reset()
    assert worst(gradients(net, torch.compile(net, backend="aot_eager")(x)[0].square().mean()), reference) < 1e-6
    torch._dynamo.reset()


@pytest.mark.parametrize("levels", [(), 0, 5, (4,), (-5,)])
def test_levels_that_there_are_not(small_model, levels):
    with pytest.raises(ValueError, match=r"the levels are .*; give one or more of 0\.\.3"):
        FeatureNet(small_model(), levels)


def test_levels_are_given_lowest_first(small_model, device):
    net = FeatureNet(small_model(encoder_stride=2), (-1, 0, 0))
    assert net.out_indices == (0, 3)
    assert net.feature_info.channels() == [4, 12]
    assert net.feature_info.reduction() == [2, 8]
    assert net.feature_info.module_name() == ["levels.0", "levels.3"]
    assert [tuple(m.shape) for m in net(torch.randn(2, 3, 16, 16, device=device))] == [(2, 4, 8, 8), (2, 12, 2, 2)]
    with pytest.raises(ValueError, match="output is 'rates'"):
        FeatureNet(small_model(), 1, "rates")  # type: ignore[arg-type]
