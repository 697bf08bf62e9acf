import copy
import dataclasses
import math
import pickle

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.func import grad, jacrev, vmap

from trevsnn.neurons import Spike

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
#: Threshold in, at an end of, below and above the window; windows of one number; zero, which has the closest neighbours.
NEURONS = [
    Spike(),
    Spike(0.1, -0.3, 0.7, 0.5),
    Spike(0.0, 0.0, 1.0, 2.0),
    Spike(1.0, -1.0, 1.0),
    Spike(-2.0, -1.0, 1.0, 3.0),
    Spike(2.5, -1.0, 1.0, 0.3),
    Spike(0.3, 0.3, 0.3),
    Spike(5.0, 0.3, 0.3, -1.0),
]


def around(neuron: Spike, dtype: torch.dtype) -> list[float]:
    """The numbers of a dtype at and on either side of each of a neuron's bounds, and others."""
    bounds = torch.tensor([neuron.threshold, neuron.low, neuron.high], dtype=dtype)
    wide = bounds.float() if dtype is torch.float16 else bounds  # nextafter knows no float16
    step = 2.0**-14 if dtype is torch.float16 else 0.0
    below = wide - step if step else wide.nextafter(torch.tensor(-math.inf, dtype=wide.dtype))
    above = wide + step if step else wide.nextafter(torch.tensor(math.inf, dtype=wide.dtype))
    others = torch.tensor([-0.0, 0.0, -9.0, 9.0, -math.inf, math.inf], dtype=wide.dtype)
    return torch.cat([bounds.to(wide.dtype), below, above, others]).tolist()


def plain(neuron: Spike, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """s(v) as its definition has it, and whether v lies in the window."""
    return (v >= neuron.threshold).to(v.dtype), (v >= neuron.low) & (v <= neuron.high)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("neuron", NEURONS)
def test_spike_and_surrogate_are_their_definitions_at_every_edge(device, neuron, dtype):
    v = torch.tensor(around(neuron, dtype), dtype=dtype, device=device, requires_grad=True)
    spikes, inside = plain(neuron, v.detach())
    gradient = torch.arange(1, len(v) + 1).to(device, dtype)
    s = neuron(v)
    assert torch.equal(s, spikes)
    s.backward(gradient)
    assert v.grad is not None
    assert torch.equal(v.grad, inside * gradient * neuron.height)
    assert torch.equal(neuron.fire(v.detach()), spikes)
    assert torch.equal(neuron.fire_(v.detach().clone()), spikes)
    assert torch.equal(neuron.window(v.detach()), inside)
    assert torch.equal(neuron.pull_back(v.detach(), gradient), v.grad)


@given(
    neuron=st.sampled_from(NEURONS),
    dtype=st.sampled_from(DTYPES),
    shape=st.one_of(
        st.tuples(),
        st.tuples(st.integers(0, 9)),
        st.tuples(*[st.integers(0, 4)] * 2),
        st.tuples(*[st.integers(1, 5)] * 4),
    ),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_code_sees_and_pulls_back_as_its_state(device, neuron, dtype, shape, channels_last, seed):
    assume(dtype != torch.float64 or device.type != "mps")
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor(around(neuron, dtype), dtype=dtype)
    state = values[torch.randint(len(values), shape, generator=generator)].to(device)
    gradient = torch.randn(shape, generator=generator).to(device)
    if channels_last and state.dim() == 4:
        state = state.contiguous(memory_format=torch.channels_last)
    spikes, inside = plain(neuron, state)
    code, before = neuron.code(state), gradient.clone()
    assert (code.shape, code.dtype) == (state.shape, dtype)
    seen = code.seen()
    assert torch.equal(seen, spikes)
    assert seen.dtype == dtype
    assert seen.is_contiguous() == state.is_contiguous()
    if state.dim() == 4 and channels_last:
        assert seen.is_contiguous(memory_format=torch.channels_last)
    pulled = code.pull_back(gradient)
    assert torch.equal(pulled, inside * gradient * neuron.height)
    assert torch.equal(gradient, before)
    decoded = code.decode()
    assert decoded.dtype == dtype
    assert all(map(torch.equal, plain(neuron, decoded), (spikes, inside)))
    if state.dim() > 1:
        assert torch.equal(code[1:3].seen(), spikes[1:3])
        assert torch.equal(code[1:3].pull_back(gradient[1:3]), pulled[1:3])


def test_a_code_takes_two_bits(device):
    state = torch.randn(5, 3, 4, 7, device=device)
    assert NEURONS[1].code(state).bits.nbytes == 5 * 21
    assert NEURONS[1].bits(torch.float64) == NEURONS[1].bits(torch.bfloat16) == 2


def test_a_gradient_of_another_dtype_keeps_it(device):
    state = torch.tensor([-1.0, 0.3, 0.7, 2.0], device=device)
    gradient = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.bfloat16, device=device)
    for pulled in (Spike().pull_back(state, gradient), Spike().code(state).pull_back(gradient)):
        assert pulled.dtype == torch.bfloat16
        assert pulled.tolist() == [0, 2, 3, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_nan_and_infinity_is_a_number(device, dtype):
    v = torch.tensor([math.nan, -math.nan, 0.7, 0.3, math.inf, -math.inf, -0.0], dtype=dtype, device=device)
    for s in (
        Spike()(v),
        Spike().fire(v),
        Spike().fire_(v.clone()),
        vmap(Spike())(v),
        torch.compile(Spike().fire, backend="eager")(v),
    ):
        assert s.dtype == dtype
        assert torch.equal(s.isnan(), v.isnan())
        assert s[2:].tolist() == [1, 0, 1, 0, 0]
    infinite = v[-3:]  # their sum is NaN, though none of them is
    for s in (Spike()(infinite), Spike().fire(infinite), Spike().fire_(infinite.clone())):
        assert s.tolist() == [1, 0, 0]


def test_nan_in_a_code_is_a_silent_neuron_outside_of_the_window(device):
    code = Spike().code(torch.tensor([math.nan, 0.7], device=device))
    assert code.seen().tolist() == [0, 1]
    assert code.pull_back(torch.ones(2, device=device)).tolist() == [0, 1]
    assert code.decode()[0] < 0


def test_second_derivatives_are_those_of_a_constant(device):
    v = torch.tensor([-0.5, 0.2, 0.7, 1.5], device=device, requires_grad=True)
    neuron = Spike(height=2.0)
    (first,) = torch.autograd.grad((neuron(v) * v**2).sum(), v, create_graph=True)
    # d/dv (s v^2) = s' v^2 + 2 s v, with s' constant: s' 2v + 2 s' v + 2 s
    assert first.tolist() == pytest.approx([0, 2 * 0.04, 2 * 0.49 + 1.4, 3])
    (second,) = torch.autograd.grad(first.sum(), v)
    assert second.tolist() == pytest.approx([0, 8 * 0.2, 8 * 0.7 + 2, 2])


def test_function_transforms(device):
    v = torch.tensor([[-0.5, 0.2, 0.7, 1.5], [0.5, 1.0, 0.0, -0.1]], device=device)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], device=device)

    def loss(v):
        return (Spike(height=0.5)(v) * weights).sum()

    expected = torch.tensor([[0.0, 1.0, 1.5, 0.0], [0.5, 1.0, 1.5, 0.0]], device=device)
    assert torch.equal(grad(loss)(v[0]), expected[0])
    assert torch.equal(vmap(grad(loss))(v), expected)
    assert torch.equal(jacrev(Spike(height=0.5))(v[0]).cpu(), torch.diag(torch.tensor([0.0, 0.5, 0.5, 0.0])))
    assert torch.equal(vmap(jacrev(loss))(v), expected)
    assert torch.equal(vmap(Spike(), in_dims=1, out_dims=1)(v), Spike()(v))
    assert torch.equal(vmap(vmap(Spike()))(v), Spike()(v))
    assert torch.equal(
        jacrev(grad(lambda v: (Spike()(v) * v).sum()))(v[0]).diagonal().cpu(), torch.tensor([0.0, 2.0, 2.0, 0.0])
    )


def test_one_compiled_graph(device):
    v = torch.tensor([-0.5, 0.2, 0.7, math.nan], device=device, requires_grad=True)
    s = torch.compile(Spike(0.1, -1.0, 0.5), backend="aot_eager", fullgraph=True)(v)
    assert s.nan_to_num(9).tolist() == [0, 1, 1, 9]
    s[:3].sum().backward()
    assert v.grad is not None
    assert v.grad.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("name", ["threshold", "low", "high", "height"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused(name, value):
    with pytest.raises(ValueError, match=f"Spike: {name} is {value}; give a finite number."):
        Spike(**{name: value})


def test_a_window_the_wrong_way_round_is_refused():
    with pytest.raises(ValueError, match=r"low is 1.0, above high, 0.5"):
        Spike(low=1.0, high=0.5)


def test_neurons_are_values():
    neuron = Spike(0.2, height=0.5)
    assert neuron == copy.deepcopy(neuron) == pickle.loads(pickle.dumps(neuron))
    assert dataclasses.replace(neuron, threshold=0.5) == Spike(height=0.5)
