"""What was changed in place is noticed, and what cannot be done is said."""

import math

import pytest
import torch
from torch import nn

from own_modules import Of, loss_of, run_of
from trevsnn.neurons import Spike
from trevsnn.reversible import Readout, Replay, ReplayError, run

pytestmark = pytest.mark.usefixtures("float64")


# What was changed in place is noticed.


@pytest.mark.parametrize("what", ["input", "initial state", "frozen weight", "weight", "large buffer", "alpha"])
@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_what_is_changed_in_place_is_noticed(device64, what, mode):
    module = Of().to(device64)
    module.register_buffer("table", torch.zeros(2**17, device=device64))
    module.linear.bias.requires_grad_(False)
    x, c = torch.randn(5, 4, device=device64), torch.randn(5, 4, device=device64)
    alpha = torch.full((4,), 0.9, device=device64)
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


def test_a_readout_of_what_is_seen_is_that_of_its_spikes(device64):
    found, weights = [], torch.linspace(-1, 2, 4, device=device64)
    for mode in ("autograd", "exact", "reversible"):
        torch.manual_seed(0)
        module = Of().to(device64)
        readouts = [Readout(t, torch.sin, seen=True) for t in range(3)]
        _, read = run_of(module, mode=mode, readouts=readouts, views=[Spike(0.1, -1, 1)], once=True)
        sine = torch.ones((), device=device64).sin().item()  # its last bit is the device's
        assert sine == pytest.approx(math.sin(1), rel=1e-15)
        assert all(set(value.unique().tolist()) <= {0.0, sine} for value in read)
        loss = sum((value * weights).sum() for value in read)
        found.append(torch.autograd.grad(loss, [*module.parameters()]))
    for grads in found[1:]:
        for a, b in zip(grads, found[0], strict=True):
            assert torch.allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("mode", ["exact", "reversible", "autograd"])
def test_inference_mode_has_the_values(device64, mode):
    module = Of().to(device64)
    options = {"mode": mode, "views": [Spike()], "readouts": [Readout(2, torch.sin), Readout(1, torch.cos, seen=True)]}
    (last,), read = run_of(module, **options)
    with torch.inference_mode():
        (same,), values = run_of(module, **options)
    assert torch.equal(same, last)
    assert all(torch.equal(a, b) for a, b in zip(values, read, strict=True))


def test_what_a_view_shows_may_be_changed_in_place_a_state_or_input_may_not(device64):
    class InPlace(Of):
        def forward(self, below, above):
            return self.linear(below.mul_(2))

    found = []
    for mode in ("autograd", "exact"):
        torch.manual_seed(0)
        one, two, x = Of().to(device64), InPlace().to(device64), torch.randn(5, 4).to(device64)
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
def test_second_derivatives_and_function_transforms_are_refused(device64, mode):
    x = torch.randn(5, 4, device=device64, requires_grad=True)
    module = Of().to(device64)
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
