"""Gradients and batch statistics of data-parallel training in real processes, over gloo and NCCL."""

import contextlib
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from conftest import FORKSERVER, gradients, lively
from trevsnn import TRevSNN, TRevSNNConfig, deep_supervision_loss
from trevsnn.network.norm import BatchNorm, share_statistics

MODES = ("exact", "reversible", "autograd")
BATCH = 8


def network(mode):
    torch.manual_seed(0)
    config = TRevSNNConfig(channels=(4, 8, 8), timesteps=2, num_classes=5, in_chans=1, encoder_stride=1, backprop=mode)
    return lively(TRevSNN(config).double())


def all_heads_loss(model, x, target):
    return deep_supervision_loss(model(x, all_heads=True), target)


def last_head_loss(model, x, target):
    return nn.functional.cross_entropy(model(x), target)


def batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 1, 8, 8, dtype=torch.float64, generator=generator)
    return x, torch.randint(5, (BATCH,), generator=generator)


def own_part(rank, world):
    x, target = batch()
    return x[rank::world], target[rank::world]


def running(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers() if "running" in name}


def work(rank, folder, world):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    for shared in (False, True):
        for mode in MODES:
            module = network(mode)
            if shared:
                share_statistics(module)
            x, target = own_part(rank, world)
            wrapped = DistributedDataParallel(module)
            for _ in range(2):  # a second step finds the buckets as the first one left them
                found = gradients(module, all_heads_loss(wrapped, x, target))
            if rank == 0:
                torch.save((found, running(module)), f"{folder}/{mode}-{shared}.pt")
            for _ in range(3):
                found = gradients(module, last_head_loss(wrapped, x, target))
            if rank == 0:
                torch.save(found, f"{folder}/{mode}-{shared}-last.pt")
    dist.destroy_process_group()


def assert_gradients(found, whole, parts=None):
    """Those of the whole batch, or the mean of those of its parts."""
    assert found.keys() == whole.keys()
    for name, grad in found.items():
        expected = whole[name] if parts is None else torch.stack([part[name] for part in parts]).mean(0)
        assert float((grad - expected).norm()) <= 1e-12 * max(float(expected.norm()), 1e-2), name


def in_processes(life, tmp_path, world):
    """``life(rank, folder, world)`` in so many processes."""
    processes = [FORKSERVER.Process(target=life, args=(rank, str(tmp_path), world)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


@pytest.mark.parametrize("world", [1, 4])
def test_gradients_of_several_processes_are_those_of_one_on_all_items(tmp_path: Path, world):
    """With statistics of their own, the mean of what each would have alone; with shared ones, those of the whole batch,
    for weights shared over time too."""
    in_processes(work, tmp_path, world)
    alone, last_alone = [], []
    for rank in range(world):
        module = network("autograd")
        x, target = own_part(rank, world)
        alone.append(gradients(module, all_heads_loss(module, x, target)))
        last_alone.append(gradients(module, last_head_loss(module, x, target)))
    module = network("autograd")
    for _ in range(2):
        x, target = batch()
        whole = gradients(module, all_heads_loss(module, x, target))
    last_whole = gradients(other := network("autograd"), last_head_loss(other, x, target))
    assert whole["levels.0.shared.pw2.weight"].norm() > 1e-3
    for shared in (False, True):
        for mode in MODES:
            found, statistics = torch.load(tmp_path / f"{mode}-{shared}.pt", weights_only=True)
            assert_gradients(found, whole, None if shared else alone)
            last = torch.load(tmp_path / f"{mode}-{shared}-last.pt", weights_only=True)
            # Where one head alone is asked for, DistributedDataParallel still gets a gradient of every one.
            others = {name for name in last if name.startswith(("heads.0", "heads.1", "heads.2"))}
            assert others == last.keys() - last_whole.keys()
            assert not any(last.pop(name).any() for name in others)
            assert_gradients(last, last_whole, None if shared else last_alone)
            if shared:
                for name, buffer in running(module).items():
                    assert torch.allclose(statistics[name], buffer, rtol=1e-12, atol=1e-14), name


def test_shared_statistics_are_those_of_batch_norm_on_one_process(tmp_path: Path):
    """Against PyTorch's own layer, with a world of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        ours, theirs = BatchNorm(3).double(), nn.BatchNorm2d(3).double()
        ours.shared = True
        for layer in (ours, theirs):
            nn.init.constant_(layer.weight, 1.7)
        x = torch.randn(4, 3, 5, 2, dtype=torch.float64)
        grad = torch.randn_like(x)
        results = []
        for layer in (ours, theirs):
            leaf = x.clone().requires_grad_()
            y = layer(leaf)
            y.backward(grad)
            results.append([y, leaf.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var])
        for a, b in zip(*results, strict=True):
            assert torch.allclose(a, b, rtol=1e-12, atol=1e-13)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
def test_shared_statistics_have_a_backward_pass_in_16_bits(tmp_path: Path, low):
    """With a world of one process the gradients of own statistics, in every mode."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        found = {}
        for mode in ("autograd", "exact"):
            for shared in (False, True):
                module = network(mode).float()
                if shared:
                    share_statistics(module)
                x, target = batch()
                with torch.autocast("cpu", low):
                    loss = all_heads_loss(module, x.float(), target)
                grads = gradients(module, loss)
                found[mode, shared] = loss, torch.cat([grad.flatten() for grad in grads.values()])
        for mode in ("autograd", "exact"):
            assert found[mode, True][0] == found[mode, False][0]  # the same statistics, so the same spikes
            own, shared = (found[mode, shared][1] for shared in (False, True))
            assert (shared - own).norm() < 4 * torch.finfo(low).eps * own.norm()
    finally:
        dist.destroy_process_group()


def nccl_work(rank, folder, world):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # see conftest.py
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl", init_method=f"file://{folder}/meet", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    for shared in (False, True):
        for mode in MODES:
            module = network(mode).to(device)
            if shared:
                share_statistics(module)
            wrapped = DistributedDataParallel(module, device_ids=[rank], gradient_as_bucket_view=True)
            x, target = (part.to(device) for part in own_part(rank, world))
            module.zero_grad()
            for part in (0, 1):  # as accumulate has it: gradients are shared after the second one
                with contextlib.nullcontext() if part else wrapped.no_sync():
                    loss = all_heads_loss(wrapped, x, target)
                    loss.backward()
            found = {name: p.grad.cpu() for name, p in module.named_parameters() if p.grad is not None}
            if rank == 0:
                torch.save((loss.item(), found, running(module)), f"{folder}/{mode}-{shared}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [1, 2])
def test_statistics_are_shared_over_nccl_cuda(tmp_path: Path, world):
    """A world of one has what its own statistics give, and two processes what one has of all items."""
    if torch.cuda.device_count() < world:
        pytest.skip(f"needs {world} CUDA device(s)")
    in_processes(nccl_work, tmp_path, world)
    module = network("autograd").to("cuda")
    x, target = (part.to("cuda") for part in batch())
    for _ in range(2):
        loss = all_heads_loss(module, x, target)
        loss.backward()
    whole = {name: p.grad.cpu() for name, p in module.named_parameters() if p.grad is not None}
    for mode in MODES:
        own_loss, own, _ = torch.load(tmp_path / f"{mode}-False.pt", weights_only=True)
        shared_loss, found, statistics = torch.load(tmp_path / f"{mode}-True.pt", weights_only=True)
        assert_gradients(found, whole)
        for name, buffer in running(module).items():
            assert torch.allclose(statistics[name], buffer, rtol=1e-12, atol=1e-14), name
        if world == 1:
            assert shared_loss == pytest.approx(own_loss, rel=1e-13)
            assert_gradients(found, own)
