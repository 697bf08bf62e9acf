import math
import pickle

import pytest
import torch
from torch.func import grad, jacrev, vmap

from trevsnn.neurons import Spike, SurrogateSpike, atan, sigmoid, triangle

NEURONS = [SurrogateSpike(0.5, atan()), SurrogateSpike(-0.2, sigmoid(3.0)), SurrogateSpike(1.0, triangle(0.8))]
EDGES = torch.tensor([-1.3, -0.25, 0.0, 0.4, 0.5, 0.9, 1.0, 1.6], dtype=torch.float64)


def test_derivatives_are_those_of_their_primitives(device64):
    V = EDGES.to(device64)
    x = V.clone().requires_grad_()
    y = torch.atan(math.pi / 2 * 3.0 * x) / math.pi
    assert torch.allclose(atan(3.0)(V), torch.autograd.grad(y.sum(), x)[0])
    assert torch.allclose(sigmoid(3.0)(V), torch.autograd.grad(torch.sigmoid(3 * x).sum(), x)[0])
    assert triangle(0.5)(torch.tensor([-0.6, -0.5, -0.25, 0.0, 0.25, 0.5], device=device64)).tolist() == [
        0,
        0,
        1,
        2,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("name", "theirs", "ours"),
    [
        ("ATan", {"alpha": 2.0}, atan()),
        ("ATan", {"alpha": 5.0}, atan(5.0)),
        ("Sigmoid", {"alpha": 4.0}, sigmoid()),
        ("PiecewiseQuadratic", {"alpha": 2.0}, triangle(0.5)),
    ],
)
def test_the_same_gradients_as_spikingjelly(name, theirs, ours):
    surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
    x, v = torch.linspace(-2, 2, 41).requires_grad_(), torch.linspace(-2, 2, 41).requires_grad_()
    weights = torch.randn(41)
    spikes = getattr(surrogate, name)(**theirs)(x)
    assert torch.equal(SurrogateSpike(0.0, ours)(v), spikes)
    (spikes * weights).sum().backward()
    (SurrogateSpike(0.0, ours)(v) * weights).sum().backward()
    torch.testing.assert_close(v.grad, x.grad)


@pytest.mark.parametrize("neuron", NEURONS)
def test_spikes_gradients_and_codes(device64, neuron):
    V = EDGES.to(device64)
    v = V.clone().requires_grad_()
    s = neuron(v)
    assert torch.equal(s, (neuron.threshold <= V).double())
    weights = torch.arange(1.0, 9.0, dtype=torch.float64, device=device64)
    (s * weights).sum().backward()
    expected = neuron.derivative(V - neuron.threshold) * weights
    assert torch.equal(v.grad, expected)
    code = neuron.code(v)
    assert (code.shape, code.dtype) == (V.shape, torch.float64)
    assert torch.equal(code.seen(), s.detach())
    assert not code.seen().requires_grad
    assert torch.equal(code.pull_back(weights), expected)
    assert torch.equal(code[2:5].pull_back(weights[2:5]), expected[2:5])
    assert torch.equal(code.decode(), V)
    low = code.pull_back(weights.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.double(), expected, rtol=2e-2, atol=1e-3)
    assert neuron.bits(torch.float32) == 32
    assert neuron.bits(torch.bfloat16) == 16


def test_second_derivative_is_that_of_the_derivative(device64):
    V = EDGES.to(device64)
    neuron = SurrogateSpike(0.5, sigmoid(4.0))
    v = V.clone().requires_grad_()
    (first,) = torch.autograd.grad(neuron(v).sum(), v, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), v)
    y = torch.sigmoid(4 * (V - 0.5))
    torch.testing.assert_close(second, 16 * y * (1 - y) * (1 - 2 * y))
    assert torch.autograd.gradcheck(
        lambda g: torch.autograd.grad(neuron(v), v, g, create_graph=True)[0], V.clone().requires_grad_()
    )


@pytest.mark.parametrize("neuron", NEURONS)
def test_function_transforms(device64, neuron):
    V = EDGES.to(device64)
    slope = neuron.derivative(V - neuron.threshold)
    assert torch.equal(grad(lambda v: neuron(v).sum())(V), slope)
    assert torch.equal(jacrev(neuron)(V), torch.diag(slope))
    assert torch.equal(vmap(grad(neuron))(V), slope)
    assert torch.equal(vmap(neuron)(V), neuron(V))


def test_nan_stays_nan(device):
    v = torch.tensor([math.nan, 0.7, -math.inf, math.inf], device=device, requires_grad=True)
    s = NEURONS[0](v)
    assert s.isnan().tolist() == [True, False, False, False]
    assert s[1:].tolist() == [1, 0, 1]
    assert NEURONS[0].code(v).seen().isnan().tolist() == [True, False, False, False]


def test_neurons_are_pickled():
    again = pickle.loads(pickle.dumps(NEURONS[0]))
    assert torch.equal(again.derivative(EDGES), NEURONS[0].derivative(EDGES))


def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match=r"SurrogateSpike: threshold is nan; give a finite number."):
        SurrogateSpike(math.nan, atan())


def test_what_is_no_surrogate_is_refused_in_a_sentence():
    with pytest.raises(TypeError, match=r"derivative gives no tensor of its argument's shape; .*such as atan\(\)"):
        SurrogateSpike(1.0, atan)
    with pytest.raises(TypeError, match="derivative gives no tensor"):
        SurrogateSpike(1.0, lambda x: 0.5)
    with pytest.raises(ValueError, match="has parameters to train, which would get no gradient"):
        SurrogateSpike(1.0, lambda x: x * torch.ones((), requires_grad=True))
    with pytest.raises(TypeError, match="Spike: threshold is a Tensor; give a number"):
        Spike(torch.ones(8))
