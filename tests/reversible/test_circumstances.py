"""What the first pass of a module read is what its second pass reads."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import prune

from own_modules import Of, assert_same_gradients, loss_of, run_of

pytestmark = pytest.mark.usefixtures("float64")


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
def test_what_changes_between_the_passes_does_not_matter(device64, change, training):
    assert_same_gradients(lambda: Options().train(training), change, device64)


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


def test_a_buffer_that_is_read_and_changed_and_a_counter_are_replayed(device64):
    assert_same_gradients(Average, device=device64)
    module = Average().to(device64)
    loss = loss_of(module)
    mean = module.mean.clone()
    loss.backward()
    assert module.calls == 3
    assert torch.equal(module.mean, mean)


def test_weights_given_by_functional_call_get_the_gradient(device64):
    module = Of().to(device64)
    x = torch.randn(5, 4).to(device64)

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


def test_a_readout_may_have_parameters(device64):
    found = []
    for mode in ("autograd", "exact"):
        torch.manual_seed(0)
        module, head = Of().to(device64), nn.Linear(4, 2).to(device64)
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


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 4)

    def forward(self, below, above):
        return self.lstm(below)[0]


def test_a_recurrent_layer_does_not_move_the_weights_that_stand_in_for_its_own(device64, monkeypatch):
    def move(self):  # as cuDNN's does into one piece of memory, on CUDA
        with torch.no_grad():
            for weight in self._flat_weights:
                weight.set_(weight.clone())

    found = []
    for mode in ("autograd", "exact"):
        torch.manual_seed(0)
        module = Cell().to(device64)
        if device64.type == "cpu":
            monkeypatch.setattr(nn.LSTM, "flatten_parameters", move)
        parameters = list(module.parameters())
        places = [p.data_ptr() for p in parameters]
        loss = loss_of(module, mode=mode)
        module(torch.ones(5, 4, device=device64), None)  # an evaluation between the passes
        found.append(torch.autograd.grad(loss, parameters))
        assert [p.data_ptr() for p in parameters] == places
        assert all(ours is p for ours, p in zip(module.lstm._flat_weights, parameters, strict=True))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)
