"""What users do to modules and loops gives plain backpropagation's gradient, or a sentence."""

import math
import random
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import prune

from trevsnn.neurons import Spike
from trevsnn.reversible import Readout, Replay, ReplayError, Sees, run


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Of(nn.Module):
    """A function of a linear map of what is below."""

    def __init__(self, function=torch.tanh):
        super().__init__()
        self.linear, self.function = nn.Linear(4, 4), function

    def forward(self, below, above):
        return self.function(self.linear(below))


def run_of(module, *, mode="exact", timesteps=3, x=None, **options):
    x = torch.ones(5, 4) if x is None else x
    alphas = [[torch.full((4,), 0.5)]] * timesteps
    return run([[module]] * timesteps, alphas, [x] * timesteps, backprop=mode, **options)


def loss_of(module, **options):
    return run_of(module, **options)[0][0].square().sum()


def assert_same_gradients(make, between=lambda module: None):
    """In exact as in autograd mode, whatever is done to the module between the passes."""
    found = []
    for mode in ("autograd", "exact"):
        torch.manual_seed(0)
        module = make()
        parameters = list(module.parameters())
        loss = loss_of(module, mode=mode, x=torch.randn(5, 4))
        between(module)
        loss.backward()
        found.append([p.grad for p in parameters])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-12, atol=1e-14)


# What the first pass read is what the second pass reads.


class Options(nn.Module):
    """Reads a flag, a number and a submodule that may be others when the backward pass comes."""

    def __init__(self):
        super().__init__()
        self.linear, self.slope, self.power = nn.Linear(4, 4), 0.3, 2
        self.dropout, self.norm = nn.Dropout(0.4), nn.BatchNorm1d(4)

    def forward(self, below, above):
        return F.leaky_relu(self.norm(self.dropout(self.linear(below))), self.slope) ** self.power


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.eval(),
        lambda m: setattr(m, "slope", 1.0),
        lambda m: setattr(m, "power", 3),
        lambda m: setattr(m.dropout, "p", 0.9),
        lambda m: setattr(m.norm, "eps", 10.0),
        lambda m: setattr(m, "linear", nn.Linear(4, 4)),
        lambda m: [p.requires_grad_(False) for p in m.parameters()],
        lambda m: run_of(m, mode="autograd"),
    ],
    ids=["mode", "number", "power", "dropout", "eps", "submodule", "frozen", "another pass"],
)
@pytest.mark.parametrize("training", [True, False])
def test_what_changes_between_the_passes_does_not_matter(change, training):
    assert_same_gradients(lambda: Options().train(training), change)


class Average(nn.Module):
    """Adds to its value the running mean of what it saw: a buffer that it reads and changes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("mean", torch.ones(4))
        self.calls = 0

    def forward(self, below, above):
        self.calls += 1
        value = self.linear(below)
        self.mean.mul_(0.5).add_(value.detach().mean(0))
        return torch.tanh(value + self.mean) / self.calls


def test_a_buffer_that_is_read_and_changed_and_a_counter_are_replayed():
    assert_same_gradients(Average)
    module = Average()
    loss = loss_of(module)
    mean = module.mean.clone()
    loss.backward()
    assert module.calls == 3
    assert torch.equal(module.mean, mean)


def test_weights_given_by_functional_call_get_the_gradient():
    module = Of()
    x = torch.randn(5, 4)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = module

        def forward(self, x, mode):
            return loss_of(self.f, mode=mode, x=x)

    found = []
    for mode in ("autograd", "exact"):
        given = {f"f.{n}": (2 * p.detach()).requires_grad_() for n, p in module.named_parameters()}
        inner = {n: 0.5 * p + 0.1 for n, p in given.items()}  # one step of an inner loop: no leaves
        loss = torch.func.functional_call(Network(), inner, (x, mode))
        found.append(torch.autograd.grad(loss, list(given.values())))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)
    assert all(p.grad is None for p in module.parameters())


def test_a_readout_may_have_parameters():
    found = []
    for mode in ("autograd", "exact"):
        torch.manual_seed(0)
        module, head = Of(), nn.Linear(4, 2)
        _, read = run_of(module, mode=mode, readouts=[(0, head), (2, head)], once=True)
        found.append(
            torch.autograd.grad(read[0].sum() + read[1].square().sum(), [*module.parameters(), *head.parameters()])
        )
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


def test_a_loss_of_an_early_readout_alone_is_enough():
    found = []
    for mode in ("autograd", "exact"):
        torch.manual_seed(0)
        module = Of()
        _, read = run_of(module, mode=mode, readouts=[(1, torch.sin), (2, torch.cos)], once=True)
        found.append(torch.autograd.grad(read[0].sum(), [*module.parameters()]))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


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
def test_a_module_that_is_not_replayable_is_named(make):
    module = make()
    random.seed(3)
    with pytest.raises(ReplayError, match=rf"level 0 at timestep \d \({type(module).__name__}\)"):
        loss_of(module, x=torch.randn(5, 4)).backward()


class Marked(Of):
    """Looks at an attribute that somebody gave to its parameter."""

    def forward(self, below, above):
        assert isinstance(self.linear.weight, nn.Parameter)
        return below @ (self.linear.weight * self.linear.weight.mask)


def test_parameters_keep_their_attributes_and_class():
    class Own(nn.Parameter):
        pass

    def make():
        module = Marked()
        module.linear = nn.Linear(4, 4, bias=False)
        module.linear.weight = Own(module.linear.weight)
        module.linear.weight.mask = torch.eye(4)
        return module

    assert_same_gradients(make)


def test_names_that_go_between_the_passes_come_back_for_the_second_alone():
    def make():
        module = Of()
        prune.l1_unstructured(module.linear, "weight", 0.5)
        return module

    assert_same_gradients(make, lambda module: prune.remove(module.linear, "weight"))
    module = make()
    loss = loss_of(module)
    prune.remove(module.linear, "weight")
    names = list(module.state_dict())
    loss.backward()
    assert list(module.state_dict()) == names


def test_an_attribute_that_a_first_call_makes_is_not_there_in_the_second_pass():
    class Counting(Of):
        calls = 0

        def forward(self, below, above):
            self.calls += 1
            return super().forward(below, above) / self.calls

    assert_same_gradients(Counting)


def test_the_check_can_be_left_out():
    loss_of(Membrane(), verify=False).backward()


def test_spikingjelly_s_neurons_keep_their_membrane_and_are_found_out():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    with pytest.raises(ReplayError, match="kept from an earlier call"):
        loss_of(Of(neuron.LIFNode())).backward()


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


def test_a_readout_that_is_the_state_is_the_user_s_own():
    _, read = run_of(Of(), readouts=[(2, lambda c: c)], once=True, views=[Spike()])
    value = read[0].detach().clone()
    read[0].sum().backward()
    assert torch.equal(read[0], value)


def test_gradients_that_backward_hooks_keep_stay_as_they_were():
    kept = {}
    for mode in ("autograd", "exact"):
        torch.manual_seed(0)
        module, kept[mode] = Of(), []
        module.register_full_backward_hook(lambda m, given, out, mode=mode: kept[mode].append(out[0]))
        loss_of(module, mode=mode, x=torch.randn(5, 4, requires_grad=True)).backward()
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


def test_a_number_0_as_alpha_forgets_what_is_not_finite():
    for mode in ("autograd", "exact"):
        rows = [[Of(lambda x: x - torch.inf)], [Of()]]
        (last,), _ = run(rows, [None, [0.0]], [torch.ones(5, 4)] * 2, backprop=mode)
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


def test_nan_is_not_taken_for_another_value():
    module = Of()
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


# What was changed in place is noticed.


@pytest.mark.parametrize("what", ["input", "initial state", "frozen weight", "weight", "large buffer", "alpha"])
@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_what_is_changed_in_place_is_noticed(what, mode):
    module = Of()
    module.register_buffer("table", torch.zeros(2**17))
    module.linear.bias.requires_grad_(False)
    x, c = torch.randn(5, 4), torch.randn(5, 4)
    alpha = torch.full((4,), 0.9)
    (last,), _ = run([[module]] * 2, [[alpha]] * 2, [x] * 2, [c], backprop=mode)
    changed = {
        "input": x, "initial state": c, "frozen weight": module.linear.bias, "weight": module.linear.weight,
        "large buffer": module.table, "alpha": alpha,
    }[what]  # fmt: skip
    with torch.no_grad():
        changed.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        last.sum().backward()


def test_a_readout_must_not_change_the_state():
    for mode in ("exact", "autograd"):
        with pytest.raises(ValueError, match=r"the readout after timestep 1 changes the state in place"):
            run_of(Of(), mode=mode, readouts=[(1, lambda c: c.mul_(2))])


def test_a_readout_gives_one_tensor():
    for mode in ("exact", "autograd"):
        with pytest.raises(TypeError, match="the readout after timestep 1 returned a tuple"):
            run_of(Of(), mode=mode, readouts=[(1, lambda c: (c, c))])


def test_a_readout_of_what_is_seen_is_that_of_its_spikes():
    found = []
    for mode in ("autograd", "exact", "reversible"):
        torch.manual_seed(0)
        module = Of()
        readouts = [Readout(t, torch.sin, seen=True) for t in range(3)]
        _, read = run_of(module, mode=mode, readouts=readouts, views=[Spike(0.1, -1, 1)], once=True)
        assert all(set(value.unique().tolist()) <= {0.0, math.sin(1)} for value in read)
        loss = sum((value * torch.linspace(-1, 2, 4)).sum() for value in read)
        found.append(torch.autograd.grad(loss, [*module.parameters()]))
    for grads in found[1:]:
        for a, b in zip(grads, found[0], strict=True):
            assert torch.allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("mode", ["exact", "reversible", "autograd"])
def test_inference_mode_has_the_values(mode):
    module = Of()
    options = {"mode": mode, "views": [Spike()], "readouts": [Readout(2, torch.sin), Readout(1, torch.cos, seen=True)]}
    (last,), read = run_of(module, **options)
    with torch.inference_mode():
        (same,), values = run_of(module, **options)
    assert torch.equal(same, last)
    assert all(torch.equal(a, b) for a, b in zip(values, read, strict=True))


def test_what_a_view_shows_may_be_changed_in_place_a_state_or_input_may_not():
    class InPlace(Of):
        def forward(self, below, above):
            return self.linear(below.mul_(2))

    found = []
    for mode in ("autograd", "exact"):
        torch.manual_seed(0)
        one, two, x = Of(), InPlace(), torch.randn(5, 4)
        last, _ = run([[one, two]] * 3, [[0.5, 0.5]] * 3, [x] * 3, views=[Spike(), None], backprop=mode)
        found.append(torch.autograd.grad(last[1].square().sum(), [*one.parameters(), *two.parameters()]))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)
    for x in (torch.randn(5, 4), torch.randn(5, 4, requires_grad=True)):
        with pytest.raises(ReplayError, match=r"level 0 at timestep 0 \(InPlace\) changes a state or input.*on a copy"):
            run_of(InPlace(), x=x)


def test_an_error_inside_a_module_says_where_it_was():
    for mode in ("exact", "autograd"):
        with pytest.raises(RuntimeError, match="cannot be multiplied") as error:
            run_of(Of(), x=torch.ones(5, 3), mode=mode)
        assert error.value.__notes__ == ["raised by level 0 at timestep 0 (Of), given (5, 3), None"]


# What cannot be done is said.


@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_second_derivatives_and_function_transforms_are_refused(mode):
    x = torch.randn(5, 4, requires_grad=True)
    module = Of()
    with pytest.raises(RuntimeError, match=r"create_graph=True.*use backprop='autograd'"):
        torch.autograd.grad(loss_of(module, mode=mode, x=x), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"torch.func transforms cannot go through"):
        torch.func.grad(lambda x: loss_of(module, mode=mode, x=x))(x)
    with pytest.raises(RuntimeError, match=r"torch.func transforms cannot go through"):
        torch.func.vmap(lambda x: loss_of(module, mode=mode, x=x))(x[None])
    expected = torch.autograd.grad(loss_of(module, mode="autograd", x=x), x)[0]
    assert torch.allclose(torch.func.grad(lambda x: loss_of(module, mode="autograd", x=x))(x), expected, rtol=1e-12)


@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_a_second_backward_pass_after_the_promise_of_one_is_refused(mode):
    _, read = run_of(Of(), mode=mode, readouts=[(2, torch.sin)], once=True)
    read[0].sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="ran a second time"):
        read[0].sum().backward()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"transforms": [[lambda below, above: below]]}, TypeError, r"transforms\[0\]\[0\] is a function; give a torch.nn.Module, or Replay"),
        ({"transforms": [[nn.LazyLinear(3)]]}, ValueError, "parameters without a shape yet"),
        ({"alphas": torch.ones(1, 1)}, TypeError, "alphas is one tensor; give a list with an entry for each"),
        ({"inputs": torch.ones(1, 5, 4)}, TypeError, r"inputs is one tensor.*list\(inputs.unbind\(0\)\)"),
        ({"alphas": 0.9}, TypeError, "alphas is a float; give a list with an entry for each of the timesteps"),
        ({"transforms": [nn.Linear(4, 4)]}, TypeError, r"transforms\[0\] is a Linear; give for each timestep a list"),
        ({"states": torch.ones(5, 4)}, TypeError, "states is one tensor"),
        ({"sees": [(-1,)]}, TypeError, r"sees\[0\] is \(-1,\); give Sees\(lower, upper, own\)"),
        ({"readouts": [(torch.sin, 0)]}, TypeError, "give a timestep and a function"),
        ({"inputs": [3]}, TypeError, r"inputs\[0\] is a int; give a tensor"),
        ({"alphas": [["half"]]}, TypeError, r"alphas\[0\]\[0\] is a str"),
        ({"alphas": [[]]}, ValueError, r"alphas\[0\] has 0 entries for 1 levels"),
        ({"views": [torch.tanh]}, TypeError, r"views\[0\] is a builtin_function_or_method, which has no method 'code'"),
        ({"views": []}, ValueError, "views has 0 entries for 1 levels"),
        ({"readouts": [(0, torch.sin, 1)]}, ValueError, r"a readout is of level 1; it must lie in 0\.\.0"),
        ({"transforms": [[Replay(lambda below, above: (below, above))]]}, TypeError, "returned a tuple"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_said(change, error, message):
    arguments = {"transforms": [[nn.Linear(4, 4)]], "alphas": [None], "inputs": [torch.ones(5, 4)], **change}
    with pytest.raises(error, match=message):
        run(**arguments)


def test_an_alpha_that_does_not_fit_is_said():
    for shape in ((5,), (1, 1, 4)):
        with pytest.raises(
            ValueError, match=r"an alpha of level 0 has shape .*cannot be broadcast to its state, \(5, 4\)"
        ):
            run([[Of()]] * 2, [None, [torch.ones(shape)]], [torch.ones(5, 4)] * 2)


def test_a_level_that_changes_its_shape_is_said():
    with pytest.raises(ValueError, match=r"the state of level 0 has shape \(5, 4\), its transform gave \(5, 1\)"):
        run([[Of()], [Of(lambda x: x[:, :1])]], [None, [0.5]], [torch.ones(5, 4)] * 2)
