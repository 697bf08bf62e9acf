"""Shards read by loading processes, and by the loader of an epoch."""

import pytest
import torch
from torch.utils.data import DataLoader

from conftest import FORKSERVER
from helpers import folder_config, shard_config
from trevsnn.data.loading import TensorDataset, batches, make_loader
from trevsnn.data.pictures.folders import load_folder
from trevsnn.data.pictures.shards import load_shards
from trevsnn.data.sampling import EpochSampler


def tensors(dataset: TensorDataset, **options) -> torch.Tensor:
    loader = DataLoader(dataset, 8, sampler=EpochSampler(40, 0, shuffle=True), **options)
    return torch.cat([inputs for inputs, _, _ in batches(loader)])


@pytest.mark.parametrize("start", ["fork", FORKSERVER])
def test_loading_processes_read_what_one_process_reads(folder_and_shards, start):
    """Copies of a process that has read already, and processes that are given the part."""
    _, shards = folder_and_shards
    part = load_shards(shard_config(shards), "train")
    dataset = TensorDataset(part, shard_config(shards, flip=True), 0, timesteps=1, training=True)
    alone = tensors(dataset)
    assert torch.equal(tensors(dataset, num_workers=1, multiprocessing_context=start), alone)
    assert torch.equal(tensors(dataset), alone)


@pytest.mark.parametrize("how", [{}, {"reduced": True}, {"on_device": True}])
def test_an_epoch_of_the_loader_has_every_picture_once(folder_and_shards, how):
    folder, shards = folder_and_shards
    found = []
    for config, load in ((shard_config(shards, **how), load_shards), (folder_config(folder, **how), load_folder)):
        part = load(config, "train")
        dataset = TensorDataset(part, config, 0, timesteps=1, training=True)
        sampler = EpochSampler(40, 0, shuffle=True, of=40, shards_N=part.shards_N)
        loader = make_loader(dataset, sampler, 8, config, torch.device("cpu"))
        found.append(torch.cat([inputs for inputs, _, _ in batches(loader)]))
    assert not torch.equal(*found)
    assert sorted(x.numpy().tobytes() for x in found[0]) == sorted(x.numpy().tobytes() for x in found[1])
