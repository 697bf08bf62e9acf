"""Data-parallel training in two real processes."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from conftest import gradients, lively
from trevsnn import TRevSNN, TRevSNNConfig, deep_supervision_loss


class Heads(nn.Module):
    def __init__(self, mode):
        super().__init__()
        torch.manual_seed(0)
        config = TRevSNNConfig(channels=(4, 8, 8), num_classes=5, in_chans=1, encoder_stride=1, backprop=mode)
        self.model = lively(TRevSNN(config).double())

    def forward(self, x):
        return self.model.forward_heads(x)


def batch(rank):
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=generator)
    return x, torch.randint(5, (4,), generator=generator)


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    for mode in ("exact", "reversible", "autograd"):
        module = Heads(mode)
        x, target = batch(rank)
        wrapped = DistributedDataParallel(module)
        for _ in range(2):  # a second step finds the buckets as the first one left them
            found = gradients(module, deep_supervision_loss(wrapped(x), target))
        if rank == 0:
            torch.save(found, f"{folder}/{mode}.pt")
    dist.destroy_process_group()


def test_gradients_are_the_mean_of_both_processes_in_every_mode(tmp_path: Path):
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    alone = []
    for rank in range(2):
        module = Heads("autograd")
        x, target = batch(rank)
        alone.append(gradients(module, deep_supervision_loss(module(x), target)))
    for mode in ("exact", "reversible", "autograd"):
        found = torch.load(tmp_path / f"{mode}.pt", weights_only=True)
        assert found.keys() == alone[0].keys()
        for name, grad in found.items():
            expected = (alone[0][name] + alone[1][name]) / 2
            assert float((grad - expected).norm()) <= 1e-12 * max(float(expected.norm()), 1e-3), (mode, name)
    assert float(found["model.levels.0.shared.pw2.weight"].norm()) == pytest.approx(
        float(
            ((alone[0]["model.levels.0.shared.pw2.weight"] + alone[1]["model.levels.0.shared.pw2.weight"]) / 2).norm()
        )
    )
