"""What users do to modules and loops gives plain backpropagation's gradient, or a sentence."""

import random
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from own_modules import Of, loss_of, run_of
from trevsnn.neurons import Spike
from trevsnn.reversible import Replay, ReplayError, Sees, run

pytestmark = pytest.mark.usefixtures("float64")


# What cannot be replayed is found out.


class Membrane(nn.Module):
    """Keeps a state in a plain attribute, cut off from the graph."""

    def __init__(self):
        super().__init__()
        self.linear, self.v = nn.Linear(4, 4), 0.0

    def forward(self, below, above):
        self.v = (0.5 * self.v + self.linear(below)).detach()
        return torch.tanh(self.linear(below) + self.v)


class Attached(Membrane):
    def forward(self, below, above):
        self.v = 0.5 * self.v + self.linear(below)
        return torch.tanh(self.v)


@pytest.mark.parametrize(
    "make",
    [
        Membrane,
        Attached,
        lambda: Of(lambda x: x * random.random()),
        lambda: Of(lambda x: x * np.random.default_rng().random()),
        lambda: Of(lambda x: x[torch.from_numpy(np.random.default_rng().permutation(5))]),
        lambda: Of(lambda x: x.flip(1) if random.random() < 0.5 else x.roll(random.randint(1, 3), 1)),
    ],
    ids=["detached state", "attached state", "random", "numpy", "permuted rows", "flipped columns"],
)
def test_a_module_that_is_not_replayable_is_named(device64, make):
    module = make().to(device64)
    random.seed(3)
    with pytest.raises(ReplayError, match=rf"level 0 at timestep \d \({type(module).__name__}\)"):
        loss_of(module, x=torch.randn(5, 4, device=device64)).backward()


def test_the_check_can_be_left_out():
    loss_of(Membrane(), verify=False).backward()


def test_spikingjelly_s_neurons_keep_their_membrane_and_are_found_out():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    with pytest.raises(ReplayError, match="kept from an earlier call"):
        loss_of(Of(neuron.LIFNode())).backward()


@pytest.mark.parametrize("timesteps", [1, 3])
@pytest.mark.parametrize("scale", [0.05, 3.0])
def test_a_membrane_is_found_out_where_no_spike_tells(scale, timesteps):
    """Each timestep has a neuron of its own. A weak current never fires, so that both passes give the same value, from potentials
    that differ, and the surrogate's derivative with them: by 0.1 to 0.2 % of the gradient."""
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    torch.manual_seed(1)
    modules = [nn.Sequential(nn.Linear(8, 8), neuron.LIFNode(), nn.Linear(8, 8)) for _ in range(timesteps)]
    frames = [scale * torch.randn(4, 8) for _ in modules]
    (state,), _ = run([[module] for module in modules], [[0.5]] * timesteps, frames, sees=[Sees((-1,))])
    with pytest.raises(
        ReplayError, match=r"at timestep \d \(Sequential\) (left something else|computed another value)"
    ):
        state.square().sum().backward()


class Caches(nn.Module):
    """Keeps a mask that it made in its first call, and for others what it last gave."""

    def __init__(self):
        super().__init__()
        self.linear, self.mask, self.last = nn.Linear(4, 4), None, {}

    def forward(self, below):
        if self.mask is None:
            self.mask = torch.tensor([1.0, 0, 1, 1])
        self.last["value"] = torch.tanh(self.linear(below) * self.mask)
        return self.last["value"]


def test_what_is_left_the_same_by_both_passes_is_no_state():
    module, x = Caches(), torch.randn(5, 4)
    gradients = []
    for mode in ("exact", "autograd"):
        module.zero_grad()
        (state,), _ = run([[module]] * 3, [[0.5]] * 3, [x] * 3, sees=[Sees((-1,))], backprop=mode)
        state.square().sum().backward()
        gradients.append(module.linear.weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_a_tensor_whose_gradient_would_be_lost_is_refused_at_once():
    gain = torch.ones(4, requires_grad=True)
    for tensor in (gain, gain * 2):
        with pytest.raises(
            ReplayError, match=r"uses a tensor of shape \(4,\) that requires a gradient.*make it a parameter"
        ):
            run_of(Of(lambda x, tensor=tensor: x * tensor))
    with pytest.raises(ReplayError, match="requires a gradient"):
        run_of(Of(lambda x: gain))
    loss_of(Of(lambda x: x * gain), mode="autograd").backward()
    assert gain.grad is not None


class GivesOut(Of):
    def forward(self, below, above):
        self.rate = self.linear(below).mean()
        return super().forward(below, above)


PEEKED = []


class Peeks(nn.Module):
    """Without parameters; shows what it is given."""

    def forward(self, below, above):
        PEEKED.append(below * 2)
        return torch.tanh(below)


def test_a_loss_of_what_a_module_gives_out_besides_its_value_is_refused():
    module, gained = GivesOut(), []
    loss = loss_of(module) + module.rate
    with pytest.raises(ReplayError, match=r"level 0 at timestep 2 \(GivesOut\) gives out a tensor besides the value"):
        loss.backward()
    plain = Of()
    plain.linear.register_forward_hook(lambda m, args, out: gained.append(out))
    loss = loss_of(plain)
    with pytest.raises(ReplayError, match="gives out a tensor besides"):
        (loss + gained[0].sum()).backward()
    loss_of(GivesOut()).backward()  # nobody uses it
    loss = loss_of(module) + module.rate
    with pytest.raises(ReplayError, match="gives out a tensor besides"):
        torch.autograd.grad(loss, [*module.parameters()])
    lower = Of()
    alphas = [[0.5, 0.5]] * 3
    last, _ = run([[lower, Peeks()]] * 3, alphas, [torch.ones(5, 4)] * 3)
    with pytest.raises(ReplayError, match="gives out a tensor besides"):  # a gradient of what lies below alone
        torch.autograd.grad(last[0].sum() + PEEKED[-1].sum(), [*lower.parameters()])


def test_a_promise_of_one_backward_pass_holds_for_a_part_of_it():
    module = Of()
    _, read = run_of(module, readouts=[(2, torch.sin), (0, torch.sin)], once=True)
    torch.autograd.grad(read[0].sum(), module.linear.bias, retain_graph=True)
    with pytest.raises(RuntimeError, match="ran a second time"):
        read[1].sum().backward()


def test_what_the_caller_does_with_lists_and_values_does_not_matter():
    found = []
    for mode in ("autograd", "exact", "reversible"):
        torch.manual_seed(0)
        module, alpha = Of(), nn.Parameter(torch.full((4,), 0.9))
        alphas, inputs, states = [[alpha]] * 3, [torch.randn(5, 4)] * 3, [torch.randn(5, 4)]
        last, read = run([[module]] * 3, alphas, inputs, states, readouts=[(1, lambda c: c)], backprop=mode)
        loss = last[0].square().sum() + read[0].square().sum()
        states[:] = [c.detach() for c in last]  # as for the next chunk of a long sequence
        alphas[1] = [0.1]
        inputs.clear()
        found.append([*torch.autograd.grad(loss, [*module.parameters(), alpha]), read[0].detach()])
    for grads in found[1:]:
        for a, b in zip(grads, found[0], strict=True):
            assert torch.allclose(a, b, rtol=1e-10)


def test_a_readout_that_is_the_state_is_the_user_s_own(device64):
    _, read = run_of(Of().to(device64), readouts=[(2, lambda c: c)], once=True, views=[Spike()])
    value = read[0].detach().clone()
    read[0].sum().backward()
    assert torch.equal(read[0], value)


def test_gradients_that_backward_hooks_keep_stay_as_they_were(device64):
    kept = {}
    for mode in ("autograd", "exact"):
        torch.manual_seed(0)
        module, kept[mode] = Of().to(device64), []
        module.register_full_backward_hook(lambda m, given, out, mode=mode: kept[mode].append(out[0]))
        loss_of(module, mode=mode, x=torch.randn(5, 4).to(device64).requires_grad_()).backward()
    for a, b in zip(kept["exact"], kept["autograd"], strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


def test_steps_leave_nothing_alive():
    module, x = Of(), torch.ones(5, 4)
    for _ in range(3):
        (last,), _ = run([[module]], [None], [x])
        loss = last.square().sum()
        reference = weakref.ref(last)
        loss.backward()
        del last, loss
        assert reference() is None


def test_a_number_0_as_alpha_forgets_what_is_not_finite(device64):
    for mode in ("autograd", "exact"):
        rows = [[Of(lambda x: x - torch.inf).to(device64)], [Of().to(device64)]]
        (last,), _ = run(rows, [None, [0.0]], [torch.ones(5, 4, device=device64)] * 2, backprop=mode)
        last.sum().backward()
        assert last.isfinite().all()
        assert rows[1][0].linear.weight.grad.isfinite().all()


def test_a_replay_in_the_place_of_a_module_sees_what_the_module_would():
    found = []
    for wrap in (lambda f: f, lambda f: Replay(f.forward, f)):
        for mode in ("autograd", "exact"):
            torch.manual_seed(0)
            lower, upper = Of(), Of()
            alphas = [[0.5, 0.5]] * 3
            rows = [[wrap(lower), wrap(upper)]] * 3
            last, _ = run(rows, alphas, [torch.ones(5, 4)] * 3, views=[Spike(), Spike()], backprop=mode)
            found.append(
                torch.autograd.grad(sum(c.square().sum() for c in last), [*lower.parameters(), *upper.parameters()])
            )
    for grads in found[1:]:
        for a, b in zip(grads, found[0], strict=True):
            assert torch.allclose(a, b, rtol=1e-12)


def test_a_function_in_replay_is_named_and_verified_as_a_module_is():
    module = Membrane()
    replay = Replay(module.forward, module)
    with pytest.raises(ReplayError, match=r"level 0 at timestep \d \(Replay\) computed another value"):
        loss_of(replay).backward()
    loss_of(replay, verify=False).backward()


def test_a_level_that_sees_only_itself_begins_from_nothing():
    class Clock(nn.Module):
        def __init__(self):
            super().__init__()
            self.beginning, self.linear = nn.Parameter(torch.ones(5, 4)), nn.Linear(4, 4)

        def forward(self, own):
            return self.beginning * 1 if own is None else torch.tanh(self.linear(own))

    found = []
    for mode in ("autograd", "exact"):
        torch.manual_seed(0)
        clock = Clock()
        loss = loss_of(clock, mode=mode, sees=[Sees((), own=True)])
        found.append(torch.autograd.grad(loss, [*clock.parameters()]))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


def test_nan_is_not_taken_for_another_value(device64):
    module = Of().to(device64)
    with torch.no_grad():
        module.linear.weight[0, 0] = torch.nan
    loss_of(module, views=[Spike()], sees=[Sees((-1,), (1,), own=False)]).backward()
    assert module.linear.weight.grad.isnan().any()


def test_a_large_buffer_that_its_module_changes_is_refused_at_once():
    class Large(Of):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.zeros(2**17))

        def forward(self, below, above):
            self.table += 1
            return super().forward(below, above) + self.table[0]

    with pytest.raises(
        RuntimeError, match=r"\(Large\) changes buffer 'table' \(131072,\) of a Large in its forward pass.*below 65536"
    ):
        run_of(Large())
