"""A network whose parts and passes users change: plain backpropagation's gradient in every mode, or a sentence."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from conftest import worst
from trevsnn import TRevSNN, TRevSNNConfig, deep_supervision_loss
from trevsnn.network.blocks import Link

BATCH, CLASSES = 3, 4


pytestmark = pytest.mark.usefixtures("float64")


def network(mode, *, device="cpu", **options):
    """Three levels whose neurons are neither silent nor always firing, cut into slices of one item."""
    torch.manual_seed(0)
    shape = {"channels": (4, 6, 8), "timesteps": 3, "encoder_stride": 1, "num_classes": CLASSES}
    options = {**shape, "slice_bytes": 1, **options}
    model = TRevSNN(TRevSNNConfig(**options, backprop=mode))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "alphas" in name:
                parameter.normal_(0.9, 0.05)
            elif name.endswith("bias"):
                parameter.normal_(0.1, 0.3)
            elif name.endswith("bn.weight"):
                parameter.normal_(1, 0.1)
            elif "gamma" not in name:
                parameter.normal_(0, 0.5)
    return model.to(device)


def picture(seed=1, device="cpu"):
    torch.manual_seed(seed)
    return torch.randn(BATCH, 3, 12, 12).to(device), torch.randint(CLASSES, (BATCH,)).to(device)


def gradients(mode, change=lambda model: None, between=lambda model, x: None, *, device="cpu", **options):
    """Of the parameters that are there before the pass, and of the input."""
    model = network(mode, device=device, **options)
    torch.manual_seed(3)
    change(model)
    model.to(device)  # what took a module's place
    named = dict(model.named_parameters())
    x, target = picture(device=device)
    if options.get("input") == "event":
        x = torch.randn(BATCH, 3, 2, 12, 12).to(device)
    x.requires_grad_()
    loss = deep_supervision_loss(model(x, all_heads=True), target)
    between(model, x)
    loss.backward()
    return {"loss": loss.detach(), "x": x.grad, **{name: p.grad for name, p in named.items() if p.grad is not None}}


def assert_same_gradients(change=lambda model: None, between=lambda model, x: None, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "levels.*are kept themselves")
        reference = gradients("autograd", change, between, **options)
        found = gradients("exact", change, between, **options)
    assert found.keys() == reference.keys()
    assert torch.equal(found["loss"], reference["loss"])
    whole = torch.cat([grad.flatten() for grad in reference.values()])
    assert (torch.cat([found[name].flatten() for name in reference]) - whole).norm() < 1e-12 * whole.norm()


def eval_mode(model, x):
    model.eval()


def other_batch(model, x):
    """A second pass, which changes batch statistics, before the first one's backward pass."""
    model.train()
    model(picture(9, x.device)[0], all_heads=True)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "between",
    [
        eval_mode,
        other_batch,
        lambda model, x: model.set_slope(0.1),
        lambda model, x: model.requires_grad_(False).requires_grad_(True),
        lambda model, x: model.levels[1].steps[1].below.register_forward_hook(lambda m, a, out: out),
        lambda model, x: setattr(model.levels[1].steps[1], "below", nn.Conv2d(4, 6, 3, 2, 1)),
    ],
    ids=["eval", "another batch", "slope", "frozen and back", "hook", "exchanged"],
)
def test_what_happens_between_the_passes_does_not_matter(device64, between, training):
    assert_same_gradients(lambda model: model.train(training).set_slope(0.5), between, device=device64)


class SeesNumbers(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, stride, 1)

    def forward(self, state):
        return self.conv(torch.tanh(state))


class Steep(Link):
    """A link of the library with a surrogate of its own."""

    def convolve(self, state):
        return self.conv((state >= 0.5).to(state.dtype) + torch.atan(state) - torch.atan(state).detach())


class AcrossTheBatch(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.scale = inner, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.inner(x) * (1 + self.scale * x.mean())


class Head(nn.Module):
    """Of the state itself, through a pool with weights."""

    def __init__(self, channels):
        super().__init__()
        self.pool_weights, self.linear = nn.Conv2d(channels, channels, 3, groups=channels), nn.Linear(channels, CLASSES)

    def forward(self, state):
        return self.linear(self.pool_weights(state).mean((2, 3)))


class PoolingHead(Head):
    def pool(self, state):
        return self.pool_weights(state).mean((2, 3))

    def forward(self, pooled):
        return self.linear(pooled)


def setting(path, make):
    """Exchange a module of the network for what ``make`` makes of it."""

    def change(model):
        parent, _, name = path.rpartition(".")
        owner = model.get_submodule(parent)
        new = make(owner.get_submodule(name))
        if name.isdigit():
            owner[int(name)] = new
        else:
            setattr(owner, name, new)

    return change


CHANGES = {
    "link that sees numbers": setting("levels.1.steps.1.below", lambda _: SeesNumbers(4, 6, 2)),
    "upper link that sees numbers": setting("levels.0.steps.2.above", lambda _: SeesNumbers(6, 4, 1)),
    "link with another surrogate": setting("levels.2.steps.0.below", lambda _: Steep(6, 8, 1, 1)),
    "link of another stride": setting("levels.1.steps.0.below", lambda _: Link(4, 6, 3, 2)),
    "torch's BatchNorm": setting("levels.1.steps.2.below.bn", lambda _: nn.BatchNorm2d(6)),
    "no BatchNorm": setting("levels.1.steps.2.below.bn", lambda _: nn.Identity()),
    "GroupNorm": setting("levels.1.steps.2.below.bn", lambda _: nn.GroupNorm(2, 6)),
    "normalised block": setting("levels.0.steps.1.project1", lambda old: nn.Sequential(old, nn.BatchNorm2d(4))),
    "block across the batch": setting("levels.1.steps.1.expand2", AcrossTheBatch),
    "dropout": setting("levels.1.steps.1.project1", lambda old: nn.Sequential(old, nn.Dropout(0.3))),
    "weight norm": setting("levels.0.steps.1.expand1.dw1", parametrizations.weight_norm),
    "spectral norm": setting("levels.0.steps.1.above.conv", parametrizations.spectral_norm),
    "pruned": setting("levels.0.steps.1.expand1.pw1", lambda old: prune.l1_unstructured(old, "weight", 0.3)),
    "tied": setting("levels.0.steps.1.expand1.dw1", lambda old: old),
    "encoder with BatchNorm": setting("encoder.stem.activation", lambda _: nn.BatchNorm2d(4)),
    "own encoder": setting("encoder", lambda _: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh())),
    "last head of the state": setting("heads.3", lambda _: Head(8)),
    "head whose pool has weights": setting("heads.1", lambda _: PoolingHead(8)),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("training", [True, False])
def test_modules_of_a_user(device64, name, training):
    assert_same_gradients(lambda model: (CHANGES[name](model), model.train(training)), device=device64)


@pytest.mark.parametrize(
    "change",
    [
        setting("heads.0", lambda _: Head(8)),
        setting("heads.0", lambda _: PoolingHead(8)),
        setting("levels.1.steps.1.above", lambda _: SeesNumbers(8, 6, 1)),
    ],
    ids=["head of the state", "head whose pool has weights", "link that sees numbers of the level that is read"],
)
def test_modules_of_a_user_where_the_head_reads_every_state(device64, change):
    assert_same_gradients(change, device=device64, input="event", readout="mean")


def test_modules_used_at_several_places(device64):
    def tie(model):
        steps = model.levels[1].steps
        steps[1].expand1 = steps[2].expand1 = steps[0].expand1
        steps[2].below.conv.weight = steps[0].below.conv.weight

    assert_same_gradients(tie, device=device64)


def test_links_that_see_numbers_are_said_once_and_others_stay_in_two_bits():
    model = network("exact")
    CHANGES["link that sees numbers"](model)
    x, _ = picture()
    with pytest.warns(
        UserWarning, match=r"levels\.1\.steps\.1\.below.*states of level 0 are kept themselves"
    ) as record:
        model(x)
    assert len(record) == 1
    assert [view is None for view in _quiet(model._views)] == [True, False, False]


def _quiet(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function()


@pytest.mark.parametrize("options", [{}, {"input": "event"}, {"encoding": "grouped"}])
def test_weights_given_by_functional_call_get_the_gradient(device64, options):
    x, target = picture(device=device64)
    if options.get("input"):
        x = torch.randn(BATCH, 3, 2, 12, 12).to(device64)
    found = []
    for mode in ("autograd", "exact"):
        model = network(mode, device=device64, **options)
        given = {name: (1.1 * p.detach()).requires_grad_() for name, p in model.named_parameters()}
        heads = torch.func.functional_call(model, given, (x,), {"all_heads": True})
        deep_supervision_loss(heads, target).backward()
        assert all(p.grad is None for p in model.parameters())
        found.append({name: p.grad for name, p in given.items()})
    assert worst(found[1], found[0]) < 1e-10


def test_an_exponential_average_evaluates_while_a_backward_pass_waits(device64):
    model, x, target = network("exact", device=device64), *picture(device=device64)
    reference = gradients("autograd", device=device64)
    loss = deep_supervision_loss(model(x.requires_grad_(), all_heads=True), target)
    average = torch.optim.swa_utils.AveragedModel(model).eval()
    average(x)
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    assert worst(found, {name: reference[name] for name in found}) < 1e-10


@pytest.mark.parametrize("what", ["input", "frozen weight", "weight", "gamma"])
@pytest.mark.parametrize("options", [{}, {"input": "event"}])
def test_what_is_changed_in_place_before_the_backward_pass_is_noticed(device64, what, options):
    model = network("exact", device=device64, **options)
    conv = model.levels[0].steps[1].expand1.dw1
    conv.weight.requires_grad_(False)
    x = torch.randn(BATCH, 3, 2, 12, 12).to(device64) if options else picture(device=device64)[0]
    loss = model(x).sum()
    changed = {"input": x, "frozen weight": conv.weight, "weight": conv.bias, "gamma": model.levels[0].steps[1].gamma}[
        what
    ]
    with torch.no_grad():
        changed.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_second_derivatives_and_function_transforms_are_refused(mode):
    model, (x, _) = network(mode).eval(), picture()
    x.requires_grad_()
    with pytest.raises(RuntimeError, match="create_graph=True"):
        torch.autograd.grad(model(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="transforms cannot go through"):
        torch.func.grad(lambda x: model(x).sum())(x)


def test_autograd_mode_has_second_derivatives_and_function_transforms():
    model, (x, _) = network("autograd").eval(), picture()
    x.requires_grad_()
    (grad,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert torch.allclose(torch.func.grad(lambda x: model(x).sum())(x), grad, rtol=1e-12)


def test_all_heads_come_through_forward():
    model, (x, _) = network("exact"), picture()
    seen = []
    model.register_forward_hook(lambda module, args, out: seen.append(out))
    heads = model.forward_heads(x)
    assert len(heads) == 4
    assert seen[0] is heads
    assert torch.equal(copy.deepcopy(model)(x), model(x, all_heads=True)[-1])
