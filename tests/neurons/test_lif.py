"""LIF neurons and networks of them: equations by hand, modes against each other, and what is refused."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from trevsnn.measure.memory import footprint
from trevsnn.neurons import IF, LIF, Momentary, Spike, SpikingNetwork, Summed, SurrogateSpike, atan


def chain(neuron=LIF, timesteps=12, width=16, **options):
    """Two layers of neurons, the second of which sees the first twice, and a last layer that sees both."""
    torch.manual_seed(0)
    net = SpikingNetwork(timesteps, **options)
    one = net.add(neuron(nn.Linear(8, width)))
    two = net.add(neuron(Summed(nn.Linear(width, width), nn.BatchNorm1d(width))), one, one)
    net.add(Momentary(Summed(nn.Linear(width, 3))), one, two)
    return net


def gradients(net, x):
    loss = net(x).square().sum()
    return loss.detach(), torch.autograd.grad(loss, [x, *net.parameters()])


class Sign:
    """A view that has no threshold for a reset to take off."""

    def __call__(self, state):
        return state.sign()

    def code(self, state):
        return SignCode(state.detach())


class SignCode:
    def __init__(self, state):
        self.state, self.shape, self.dtype = state, state.shape, state.dtype

    def __getitem__(self, rows):
        return SignCode(self.state[rows])

    def seen(self):
        return self.state.sign()

    def pull_back(self, gradient):
        return torch.zeros_like(gradient)

    def decode(self):
        return self.state


def by_hand(currents, tau, threshold, decay_input):
    """Potentials and spikes of one neuron, number by number."""
    v, potentials, spikes = 0.0, [], []
    for x in currents:
        h = v + (x - v) / tau if decay_input else v * (1 - 1 / tau) + x
        s = float(h >= threshold)
        v = h - threshold * s
        potentials.append(h)
        spikes.append(s)
    return potentials, spikes


@pytest.mark.parametrize("decay_input", [False, True])
@pytest.mark.parametrize("tau", [1.0, 2.0, 5.0])
def test_one_neuron_by_hand(device64, tau, decay_input):
    torch.manual_seed(0)
    currents = torch.rand(20, 1, 1, dtype=torch.float64) * (4 if decay_input else 1)
    net = SpikingNetwork()
    net.add(LIF(nn.Identity(), tau, Spike(0.75), decay_input=decay_input))
    _, spikes = by_hand(currents.flatten().tolist(), tau, 0.75, decay_input)
    assert net(currents.to(device64)).flatten().tolist() == spikes
    assert 0 < sum(spikes) < 20 or tau == 1


@pytest.mark.parametrize(
    "neuron",
    [LIF, IF, partial(LIF, learn_leak=True), partial(LIF, tau=1.0), partial(LIF, detach_reset=True)],
    ids=["LIF", "IF", "learned leak", "no memory", "detached reset"],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_exact_is_autograd(device, neuron, dtype, tolerance):
    net = chain(neuron).to(device, dtype)
    x = (4 * torch.rand(6, 8, dtype=dtype)).to(device).requires_grad_()
    value, reference = gradients(net, x)
    net.backprop = "autograd"
    assert gradients(net, x)[0] == value
    for got, expected in zip(reference, gradients(net, x)[1], strict=True):
        assert expected.norm() > 0
        assert (got - expected).norm() <= tolerance * expected.norm()


def test_an_encoder_computes_once_what_a_level_would_compute_at_every_timestep(device64):
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16))
    within, before = SpikingNetwork(5), SpikingNetwork(5, encoder=stem)
    within.add(LIF(stem))
    before.add(LIF(nn.Identity()))
    x = torch.randn(6, 8, dtype=torch.float64).to(device64).requires_grad_()
    results = [gradients(net.to(x), x) for net in (within, before)]
    assert results[0][0] == results[1][0]
    for a, b in zip(results[0][1], results[1][1], strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-13)
    assert stem[1].num_batches_tracked == 5 + 1


def test_what_is_inside_of_an_encoder_is_not_kept():
    net, x = (
        SpikingNetwork(2, encoder=nn.Sequential(nn.Linear(8, 1000), nn.ReLU(), nn.Linear(1000, 4))),
        torch.rand(64, 8),
    )
    net.add(Momentary(nn.Linear(4, 1)), net.add(LIF(nn.Identity())))
    kept = footprint(net, [x], lambda: net(x).square().sum()).after_forward
    assert sum(kept.values()) < 64 * 100 * 4  # a tenth of the 1000


def test_levels_are_read_and_their_spikes_have_gradients(device64):
    net = chain().to(device64, torch.float64)
    x = (4 * torch.rand(6, 8, dtype=torch.float64)).to(device64).requires_grad_()
    rates = {}
    for net.backprop in ("exact", "autograd"):
        one, two, top = net.read(x, 0, 1, -1)
        assert one.shape == two.shape == (12, 6, 16)
        assert torch.equal(one, one.bool().double())
        assert torch.equal(top, net.eval()(x)) is False  # batch statistics are not the running ones
        net.train()
        rates[net.backprop] = torch.autograd.grad(one.mean() + two.mean() ** 2, x)[0]
    assert rates["autograd"].norm() > 0
    assert torch.allclose(rates["exact"], rates["autograd"], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("timesteps", [8, 24])
def test_two_bits_for_each_neuron_and_timestep(device, timesteps):
    net, x = chain(timesteps=timesteps, width=64).to(device), torch.rand(32, 8).to(device)
    kept = footprint(net, [x], lambda: net(x).square().sum()).after_forward
    assert kept["codes"] == timesteps * 32 * (64 + 64) * 2 // 8
    assert kept["anchors"] == 0


def test_a_level_needs_three_maps_of_its_size_at_a_time_besides_states_and_adjoints():
    net, x = SpikingNetwork(3), torch.rand(64, 1000)
    net.add(Momentary(nn.Linear(1000, 1)), net.add(LIF(nn.Identity())))
    peak = footprint(net, [x], lambda: net(x).sum()).peak
    assert peak["blocks"] <= 3.3 * x.nbytes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIF(nn.Identity(), 0.5), "tau is 0.5; it must be at least 1"),
        (lambda: LIF(nn.Identity(), math.nan), "tau is nan"),
        (lambda: LIF(8), "layer is a int; give a module"),
        (lambda: LIF(nn.Identity(), Spike()), "tau is a Spike; give a number"),
        (lambda: SpikingNetwork(2).add(nn.Linear(8, 8)), "a level is a Linear; give LIF"),
        (lambda: LIF(nn.Identity(), math.inf), "set decay_input=False"),
        (lambda: LIF(nn.Identity(), 1.0, learn_leak=True), "between 1 and infinity"),
        (lambda: LIF(nn.Identity(), spike=Sign()), "LIF: spike is a Sign; give a Spike or a SurrogateSpike.*Momentary"),
        (lambda: IF(nn.Identity(), Sign()), r"spike is a Sign; give.*trevsnn\.reversible\.run\(views="),
        (lambda: LIF(nn.Identity(), spike=Spike), "spike is a type; give a Spike"),
        (lambda: chain(backprop="reversible"), "must be one of exact, autograd"),
        (lambda: chain().read(torch.rand(2, 8), 3), "no level 3"),
    ],
)
def test_what_does_not_fit_is_said(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize("neuron", [Spike(0.8, 0.2, 1.4, 0.5), SurrogateSpike(0.8, atan())])
def test_both_neurons_are_taken(neuron):
    net = SpikingNetwork(2)
    for level in (LIF(nn.Linear(8, 8), spike=neuron), IF(nn.Linear(8, 8), neuron)):
        net.add(level, len(net.levels) - 1)
        assert level.view is neuron
    assert net(torch.rand(3, 8)).shape == (2, 3, 8)


def test_a_view_of_another_kind_stands_in_a_level_without_memory():
    net = SpikingNetwork(2)
    net.add(Momentary(nn.Linear(8, 8), Sign()))
    assert set(net(torch.randn(64, 8)).unique().tolist()) == {-1.0, 1.0}


def test_a_level_sees_those_below_it():
    net = SpikingNetwork(2)
    with pytest.raises(ValueError, match=r"level 0 sees levels below it.*got \(0,\)"):
        net.add(LIF(nn.Identity()), 0)


def test_rates_are_read_without_keeping_the_spikes(device):
    """A loss on rates costs nothing more than the codes that are kept anyway, and its gradient is exact."""
    net = chain(timesteps=12, width=256).to(device)
    x = 3 * torch.rand(8, 8).to(device)
    parameters = [*net.parameters()]
    found, kept = {}, {}
    for net.backprop in ("autograd", "exact"):
        rates = net.read(x, (0, torch.mean), (1, torch.mean))
        assert [tuple(r.shape) for r in rates] == [(12,), (12,)]
        spikes = net.read(x, 0, 1)
        for rate, spike in zip(rates, spikes, strict=True):
            assert torch.allclose(rate, spike.mean((1, 2)))
        found[net.backprop] = torch.autograd.grad(sum(r.square().sum() for r in rates), parameters, allow_unused=True)
    for a, b in zip(found["exact"], found["autograd"], strict=True):
        if b is None:  # nothing reaches the last layer
            assert a is None or a.norm() == 0
        else:
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-7)
    for levels in ((), (0, 1)):
        read = [(level, torch.mean) for level in (-1, *levels)]
        after = footprint(net, [x], lambda read=read: sum(r.sum() for r in net.read(x, *read))).after_forward
        net.zero_grad(set_to_none=True)
        kept[levels] = sum(after.values())
    neurons = 2 * 8 * 256 * 12
    assert kept[0, 1] - kept[()] < 0.05 * neurons / 4 + 2 * 12 * 64  # their codes are there already
