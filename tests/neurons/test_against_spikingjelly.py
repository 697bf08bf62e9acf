"""LIF networks against SpikingJelly's neurons and models, which nobody here wrote: the same weights, spikes and gradients."""

from functools import partial

import pytest
import torch
from torch import nn

from lif_networks import Attention, sew_resnet18, spikformer, vgg
from trevsnn.neurons import IF, LIF, Momentary, Spike, SpikingNetwork, SurrogateSpike, atan

jelly = pytest.importorskip("spikingjelly.activation_based")
from spikingjelly.activation_based import functional, layer, neuron, surrogate  # noqa: E402
from spikingjelly.activation_based.model import sew_resnet  # noqa: E402
from spikingjelly.activation_based.model import spikformer as jelly_spikformer  # noqa: E402

SETTINGS = [{"decay_input": decay, "detach_reset": detach} for decay in (False, True) for detach in (False, True)]
#: For networks: the number of timesteps, and how their neurons are set.
CASES = [(1, SETTINGS[0]), *((4, settings) for settings in SETTINGS[:3]), (16, SETTINGS[3])]


def theirs(kind=neuron.LIFNode, **settings):
    """One of SpikingJelly's neurons with a soft reset and, but where said, the rectangular surrogate."""
    return kind(**{"v_reset": None, "surrogate_function": surrogate.Rect(), **settings})


def one_after_another(net, frames):
    """Step mode "s": values (T, B, ...)."""
    functional.set_step_mode(net, "s")
    functional.reset_net(net)
    return torch.stack([net(frame) for frame in frames])


def lively(net, firing=2.0):
    """Weights under which neurons of all layers fire now and then, and all parts of the network matter."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, firing)
                module.bias.uniform_(0, firing)
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            elif isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
                if module.bias is not None:
                    module.bias.uniform_(0, firing)
    return net.double()


def copy_weights(ours, reference):
    """Both have the same parameters and buffers in the same order, a 1 x 1 convolution of theirs perhaps in one axis."""
    own, other = ours.state_dict(), reference.state_dict()
    assert len(own) == len(other)
    for source, target in zip(own.values(), other.values(), strict=True):
        assert source.numel() == target.numel()
        target.copy_(source.reshape(target.shape))


def spikes_of(reference, forward, x):
    """Of all layers of neurons, in order, (T, B, ...) each."""
    nodes = [m for m in reference.modules() if isinstance(m, neuron.BaseNode)]
    found = {node: [] for node in nodes}
    handles = [node.register_forward_hook(lambda m, _, spikes: found[m].append(spikes)) for node in nodes]
    with torch.no_grad():
        forward(x)
    for handle in handles:
        handle.remove()
    return [torch.stack(s) if len(s) > 1 or nodes[0].step_mode == "s" else s[0] for s in found.values()]


def compare(ours, reference, forward, x):
    """Spikes, and in both modes values and the gradients of the input and all parameters, in float64."""
    copy_weights(ours, reference)
    levels = [n for n, level in enumerate(ours.levels) if isinstance(level, LIF)]
    with torch.no_grad():
        own = ours.read(x, *levels)
    for ours_spikes, spikes in zip(own, spikes_of(reference, forward, x), strict=True):
        assert torch.equal(ours_spikes.flatten(), spikes.flatten())
        assert 0 < spikes.mean() < 1

    def everything(run, net):
        value = run(x)
        weight = torch.linspace(-1, 2, value.numel(), dtype=x.dtype).view_as(value)
        return value.detach(), torch.autograd.grad((weight * value).sum(), [x, *net.parameters()])

    value, gradients = everything(forward, reference)
    assert all(g.norm() > 0 for g in gradients)
    for ours.backprop in ("exact", "autograd"):
        own, grads = everything(ours, ours)
        assert (own - value).norm() <= 1e-12 * value.norm()
        for g, r in zip(grads, gradients, strict=True):
            assert (g.view_as(r) - r).norm() <= 1e-9 * r.norm()


def small_stack(timesteps, **settings):
    """Two layers of our neurons and a last layer."""
    net = SpikingNetwork(timesteps)
    one = net.add(LIF(nn.Linear(6, 24), **settings))
    two = net.add(LIF(nn.Linear(24, 24), **settings), one)
    net.add(Momentary(nn.Linear(24, 3)), two)
    return net


def small_stack_of_theirs(*neurons):
    return nn.Sequential(layer.Linear(6, 24), neurons[0], layer.Linear(24, 24), neurons[1], layer.Linear(24, 3))


class LeakFirst(nn.Module):
    """A layer and its neurons, with their parameters in our order."""

    def __init__(self, node, linear):
        super().__init__()
        self.node, self.linear = node, linear

    def forward(self, x):
        return self.node(self.linear(x))


def vectors(timesteps=0):
    return torch.randn(*([timesteps] if timesteps else []), 8, 6, dtype=torch.float64, requires_grad=True)


def pictures(size, channels=3):
    return torch.rand(2, channels, size, size, dtype=torch.float64, requires_grad=True)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("timesteps", [1, 4, 16])
def test_linear_layers(timesteps, settings):
    ours = lively(small_stack(timesteps, tau=3.0, **settings), firing=6)
    reference = small_stack_of_theirs(*(theirs(tau=3.0, **settings) for _ in range(2))).double()
    compare(ours, reference, lambda x: one_after_another(reference, [x] * timesteps), vectors())


@pytest.mark.parametrize("settings", SETTINGS)
def test_frames_and_a_learned_leak(settings):
    ours = lively(small_stack(None, tau=1.5, learn_leak=True, **settings))
    with torch.no_grad():
        ours.levels[1].w.add_(0.5)
    nodes = [theirs(neuron.ParametricLIFNode, init_tau=1.5, **settings) for _ in range(2)]
    one, node_1, two, node_2, last = small_stack_of_theirs(*nodes)
    reference = nn.Sequential(LeakFirst(node_1, one), LeakFirst(node_2, two), last).double()
    compare(ours, reference, lambda frames: one_after_another(reference, frames), vectors(16))


@pytest.mark.parametrize("detach", [False, True])
def test_integrate_and_fire(detach):
    ours = SpikingNetwork(16)
    one = ours.add(IF(nn.Linear(6, 24), detach_reset=detach))
    ours.add(Momentary(nn.Linear(24, 3)), one)
    node = theirs(neuron.IFNode, detach_reset=detach)
    reference = nn.Sequential(layer.Linear(6, 24), node, layer.Linear(24, 3)).double()
    compare(lively(ours), reference, lambda x: one_after_another(reference, [x] * 16), vectors())


def test_another_threshold_and_surrogate():
    ours = lively(small_stack(16, spike=SurrogateSpike(0.7, atan())))
    nodes = [theirs(v_threshold=0.7, surrogate_function=surrogate.ATan()) for _ in range(2)]
    reference = small_stack_of_theirs(*nodes).double()
    compare(ours, reference, lambda x: one_after_another(reference, [x] * 16), vectors())


def test_another_window():
    ours = lively(small_stack(16, spike=Spike(0.7, 0.7 - 0.25, 0.7 + 0.25, 2.0)))
    nodes = [theirs(v_threshold=0.7, surrogate_function=surrogate.Rect(2.0)) for _ in range(2)]
    reference = small_stack_of_theirs(*nodes).double()
    compare(ours, reference, lambda x: one_after_another(reference, [x] * 16), vectors())


def test_the_end_of_the_window_is_ours_and_not_theirs():
    potential = torch.tensor([0.5, 0.75, 1.5], dtype=torch.float64, requires_grad=True)
    (own,) = torch.autograd.grad(Spike(1.0, 0.5, 1.5)(potential).sum(), potential)
    (other,) = torch.autograd.grad(surrogate.Rect()(potential - 1).sum(), potential)
    assert own.tolist() == [1, 1, 1]
    assert other.tolist() == [0, 1, 0]


@pytest.mark.parametrize(("timesteps", "settings"), CASES)
def test_vgg_with_batch_statistics_of_each_timestep(timesteps, settings):
    ours = lively(vgg((4, 6, 8), 3, 5, timesteps, partial(LIF, **settings)))

    def block(narrow, wide):
        return layer.Conv2d(narrow, wide, 3, padding=1, bias=False), layer.BatchNorm2d(wide), theirs(**settings)

    reference = nn.Sequential(
        *block(3, 4), *block(4, 4), layer.MaxPool2d(2), *block(4, 6), *block(6, 6), layer.MaxPool2d(2), *block(6, 8),
        *block(8, 8), layer.AdaptiveAvgPool2d(1), layer.Flatten(), layer.Linear(8, 5),
    ).double()  # fmt: skip
    compare(ours, reference, lambda x: one_after_another(reference, [x] * timesteps), pictures(12))


@pytest.mark.parametrize(("timesteps", "settings"), CASES)
def test_sew_resnet18_with_batch_statistics_of_each_timestep(timesteps, settings):
    ours = lively(sew_resnet18(3, 5, timesteps, neuron=partial(LIF, **settings)))
    reference = sew_resnet.sew_resnet18(
        cnf="ADD",
        num_classes=5,
        spiking_neuron=neuron.LIFNode,
        v_reset=None,
        surrogate_function=surrogate.Rect(),
        **settings,
    ).double()
    compare(ours, reference, lambda x: one_after_another(reference, [x] * timesteps), pictures(32))


@pytest.mark.parametrize(("timesteps", "settings"), CASES)
def test_spikformer(timesteps, settings):
    """In evaluation, since SpikingJelly's model normalises over all timesteps together. Attention to nothing gives a
    potential of exactly 0, an end of the window, where the surrogates differ: here the ends do not belong to ours either."""
    limits = torch.finfo(torch.float64)
    pools = (False, False, True, True)
    ours = lively(
        spikformer(3, 5, timesteps, 32, depth=2, heads=2, pools=pools, neuron=partial(LIF, **settings))
    ).eval()
    for level in ours.levels:
        if isinstance(level.layer, Attention):
            level.spike = Spike(0.5, limits.tiny, 1 - limits.eps)
    reference = jelly_spikformer.Spikformer(
        T=timesteps, img_size_h=16, img_size_w=16, patch_size=4, num_classes=5, embed_dims=32, num_heads=2, depths=2,
        v_reset=None, surrogate_function=surrogate.Rect(), **settings,
    ).double().eval()  # fmt: skip
    for node in reference.modules():
        if isinstance(node, neuron.BaseNode):
            node.detach_reset = settings["detach_reset"]  # which the attention does not take over

    def forward(x):
        functional.reset_net(reference)
        return reference(x)

    compare(ours, reference, forward, pictures(16))
