"""Batch normalisation against PyTorch's."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.optim.swa_utils import update_bn

from conftest import gradients, lively, worst
from helpers import loss_of
from trevsnn.network.blocks import Link
from trevsnn.network.norm import BatchNorm, Statistics, batch_statistics, normalise_backward, plain_batch_statistics

OPTIONS = [
    {"momentum": momentum, "affine": affine, "track_running_stats": track}
    for momentum, affine, track in itertools.product([0.1, None], [True, False], [True, False])
]


def pair(dtype, options, training=True, device="cpu"):
    """Ours and torch's with the same weights, and running statistics of two batches."""
    torch.manual_seed(0)
    ours = lively(BatchNorm(6, **options).to(dtype))
    theirs = nn.BatchNorm2d(6, **options).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    ours, theirs = ours.to(device), theirs.to(device)
    for _ in range(2):
        x = 2 * torch.randn(4, 6, 5, 5, dtype=dtype).to(device) - 1
        ours(x), theirs(x)
    return ours.train(training), theirs.train(training)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_that_of_torch(device, dtype, options, training):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    norms = pair(wide, options, training, device)
    x = (3 * torch.randn(4, 6, 5, 5) + 1).to(device, dtype)
    adjoint = torch.randn(4, 6, 5, 5).to(device, dtype)
    results = []
    for bn in norms:
        source = x.clone().requires_grad_()
        out = bn(source)
        out.backward(adjoint)
        assert out.dtype == dtype
        results.append([out.detach(), source.grad, *(p.grad for p in bn.parameters()), *bn.buffers()])
    unit = torch.finfo(dtype).eps
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype
        assert torch.allclose(a, b, rtol=8 * unit, atol=16 * unit)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0])
def test_batch_statistics_in_plain_operations_are_the_same(device, dtype, factor):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    maps = (3 * torch.randn(4, 6, 5, 5) + 1).to(device, dtype)
    found = []
    for statistics in (batch_statistics, plain_batch_statistics):
        running = [torch.full((6,), start, dtype=wide, device=device) for start in (0.5, 2.0)]
        found.append([*statistics(maps, *running, factor), *running])
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype == wide
        assert torch.allclose(a, b, rtol=16 * torch.finfo(wide).eps, atol=16 * torch.finfo(wide).eps)


def test_running_statistics_can_be_switched_off_afterwards(device64):
    """torch then uses those there are in evaluation, and leaves them in training."""
    ours, theirs = pair(torch.float64, {}, device=device64)
    ours.track_running_stats = theirs.track_running_stats = False
    for training in (True, False):
        x = torch.randn(4, 6, 5, 5, dtype=torch.float64).to(device64)
        assert torch.allclose(ours.train(training)(x), theirs.train(training)(x), rtol=1e-13, atol=1e-14)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.allclose(a, b, rtol=1e-14, atol=0)  # CUDA's two operations sum in other orders


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_second_derivatives_are_those_of_torch(device64, options, training):
    norms = pair(torch.float64, options, training, device64)
    x = torch.randn(2, 6, 2, 2, dtype=torch.float64).to(device64).requires_grad_()
    found = []
    for bn in norms:
        (first,) = torch.autograd.grad(bn(x).pow(3).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [x, *bn.parameters()], allow_unused=True))
    for a, b in zip(*found, strict=True):
        assert (a is None and b is None) or torch.allclose(a, b, rtol=1e-12, atol=1e-13)
    names = [name for name, _ in norms[0].named_parameters()]
    buffers = {name: b.clone() for name, b in norms[0].named_buffers()}

    def normalised(x, *parameters):
        own = {name: b.clone() for name, b in buffers.items()}
        return functional_call(norms[0], {**own, **dict(zip(names, parameters, strict=True))}, (x,))

    assert torch.autograd.gradgradcheck(normalised, (x, *norms[0].parameters()))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap's, of an operation it runs in a loop
@pytest.mark.parametrize("training", [True, False])
def test_transforms_of_torch_func_give_the_gradient_of_each_batch(device64, training):
    ours, theirs = pair(torch.float64, {"track_running_stats": False}, training, device64)
    x = torch.randn(3, 4, 6, 2, 2, dtype=torch.float64).to(device64)
    of_each = vmap(grad(lambda batch: ours(batch).pow(3).sum()))(x)
    for batch, found in zip(x, of_each, strict=True):
        batch.requires_grad_()
        (expected,) = torch.autograd.grad(theirs(batch).pow(3).sum(), batch)
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_shared_statistics_refuse_a_second_derivative(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(torch.distributed, "all_gather", lambda out, own: out[0].copy_(own))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    bn = BatchNorm(6).double()
    bn.shared = True
    x = torch.randn(4, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="have no second derivative: leave out create_graph"):
        torch.autograd.grad(bn(x).pow(3).sum(), x, create_graph=True)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_statistics_of_one_process_alone_are_its_own(monkeypatch, dtype, options):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(torch.distributed, "all_gather", lambda out, own: out[0].copy_(own))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    alone, _ = pair(torch.float64 if dtype == torch.float64 else torch.float32, options)
    shared = copy.deepcopy(alone)
    shared.shared = True
    x, adjoint = (torch.randn(4, 6, 5, 5).to(dtype) for _ in range(2))
    results = []
    for bn in (alone, shared):
        source = x.clone().requires_grad_()
        out = bn(source)
        out.backward(adjoint)
        results.append([out.detach(), source.grad, *(p.grad for p in bn.parameters()), *bn.buffers()])
    unit = torch.finfo(dtype).eps
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=16 * unit, atol=32 * unit)


def test_gradients_whose_sum_float16_cannot_hold_are_those_of_one_process(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    grad = (torch.rand(8, 3, 8, 8) * 2000).half()
    maps = torch.randn(8, 3, 8, 8).half()
    assert grad.sum((0, 2, 3)).isinf().all()
    var, mean = torch.var_mean(maps.float(), (0, 2, 3), correction=0)
    weight = torch.rand(3) + 0.5
    plain, shared = (
        normalise_backward(grad, maps, Statistics(mean, var, True, shared), weight, 1e-5) for shared in (False, True)
    )
    assert [g.dtype for g in shared] == [torch.float16, torch.float32, torch.float32]
    for ours, expected in zip(shared, plain, strict=True):
        assert expected.isfinite().all()
        assert (ours.float() - expected.float()).norm() < 2 * torch.finfo(torch.float16).eps * expected.float().norm()


def network(small_model, kind=BatchNorm, **options):
    model = small_model(channels=(4, 8, 8), in_chans=1, alpha=0.9)
    for link in (module for module in model.modules() if isinstance(module, Link)):
        link.bn = kind(link.bn.num_features, **options)
    torch.manual_seed(1)
    device = next(model.parameters()).device
    return lively(model.cpu().double(), 0.9).to(device)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_all_modes_have_one_gradient_and_the_same_running_statistics(small_model, device64, options, training):
    x, target = torch.randn(3, 1, 8, 8, dtype=torch.float64).to(device64), torch.randint(5, (3,)).to(device64)
    found, buffers = {}, {}
    for mode in ("autograd", "exact", "reversible"):
        model = network(small_model, **options)
        model.set_backprop(mode)
        model(2 * x + 1)
        found[mode] = gradients(model.train(training), loss_of(model, x, target))
        buffers[mode] = list(model.buffers())
    for mode in ("exact", "reversible"):
        assert worst(found[mode], found["autograd"]) < 1e-12
        for a, b in zip(buffers[mode], buffers["autograd"], strict=True):
            assert torch.allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize("mode", ["autograd", "exact", "reversible"])
def test_a_training_pass_before_the_backward_pass_changes_no_gradient_of_evaluation(small_model, device64, mode):
    x, target = torch.randn(3, 1, 8, 8, dtype=torch.float64).to(device64), torch.randint(5, (3,)).to(device64)
    model = network(small_model).eval()
    model.set_backprop("autograd")
    expected = gradients(model, loss_of(model, x, target))
    model.set_backprop(mode)
    loss = loss_of(model, x, target)
    model.train()(3 * x + 5)
    assert worst(gradients(model, loss), expected) < 1e-12


def test_update_bn_gives_the_statistics_of_plain_batch_norms(small_model, device64):
    ours, theirs = network(small_model), network(small_model, nn.BatchNorm2d)
    batches = [torch.randn(3, 1, 8, 8, dtype=torch.float64).to(device64) for _ in range(3)]
    for model in (ours, theirs):
        model(5 * batches[0])
        update_bn(batches, model)
    found, expected = dict(ours.named_buffers()), dict(theirs.named_buffers())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-13, atol=1e-14), name
    assert found["levels.1.steps.0.below.bn.num_batches_tracked"] == 3
    assert ours.levels[1].steps[0].below.bn.momentum == 0.1


def test_one_value_per_channel_cannot_be_normalised():
    with pytest.raises(
        ValueError, match=r"shape \(1, 4, 1, 1\) need more than one value per channel: use a larger batch"
    ):
        BatchNorm(4)(torch.randn(1, 4, 1, 1))
