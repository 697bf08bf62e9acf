"""The order of an epoch's items."""

from itertools import groupby

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trevsnn.data.sampling import LANES, EpochSampler, mix_seed, shuffled_by_shards


def test_the_sampler_s_order_can_be_entered_anywhere():
    sampler = EpochSampler(50, seed=1, shuffle=True)
    sampler.epoch = 4
    whole = list(sampler)
    assert sorted(whole) == [(4, i) for i in range(50)]
    sampler.start = 20
    assert list(sampler) == whole[20:]
    assert len(sampler) == 30
    sampler.epoch, sampler.start = 5, 0
    assert [i for _, i in sampler] != [i for _, i in whole]
    assert len({mix_seed(a, b) for a in range(40) for b in range(40)}) == 1600


def test_processes_share_an_epoch_without_overlap():
    """Four processes see in each step what one sees, and what is left out at the end changes with the epoch."""
    alone = EpochSampler(48, seed=1, shuffle=True, of=50)
    shared = [EpochSampler(48, seed=1, shuffle=True, rank=r, world=4, of=50) for r in range(4)]
    for sampler in (alone, *shared):
        sampler.epoch, sampler.start = 2, 16
    parts = [list(sampler) for sampler in shared]
    assert [len(part) for part in parts] == [len(s) for s in shared] == [8] * 4
    for step in range(2):
        together = {key for part in parts for key in part[4 * step : 4 * step + 4]}
        assert together == set(list(alone)[16 * step : 16 * step + 16])
    left_out = []
    for epoch in range(2):
        alone.epoch, alone.start = epoch, 0
        left_out.append(set(range(50)) - {i for _, i in alone})
    assert [len(s) for s in left_out] == [2, 2]
    assert left_out[0] != left_out[1]
    uneven = [EpochSampler(10, 0, shuffle=False, rank=r, world=4) for r in range(4)]
    assert [len(s) for s in uneven] == [3, 3, 2, 2]
    assert sorted(i for s in uneven for _, i in s) == list(range(10))


def by_shards(sizes: list[int], seed: int = 0, **options) -> list[int]:
    shards_N = np.repeat(np.arange(len(sizes)), sizes)
    sampler = EpochSampler(options.pop("size", len(shards_N)), seed, shuffle=True, shards_N=shards_N, **options)
    return [index for _, index in sampler]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=90).filter(any), st.integers(0, 5))
def test_items_of_shards_are_seen_once_each(sizes, seed):
    assert sorted(by_shards(sizes, seed)) == list(range(sum(sizes)))


def test_at_any_time_few_shards_are_read():
    """Each lane reads one shard at a time, and one more as it goes on to the next."""
    sizes, size = [50] * 400, 20_000
    order = np.array(by_shards(sizes))
    shards_T = order // 50
    for begin in range(0, size - 32 * 25, 32 * 5):  # half a shard's time
        assert len(set(shards_T[begin : begin + 32 * 25])) <= 2 * LANES
    for lane in range(LANES):
        visits = [shard for shard, _ in groupby(shards_T[lane::LANES])]
        assert len(visits) == len(set(visits))  # a shard is left for good
        assert len(visits) <= -(-size // LANES // 50) + 1
    within = order[shards_T == shards_T[0]] % 50
    assert sorted(within) == list(range(50))
    assert sorted(within) != within.tolist()


@pytest.mark.parametrize("world", [2, 4, 32])
def test_a_process_reads_shards_of_its_own(world):
    """Those of its lanes; a shard that lies across the border of two lanes is in both."""
    sizes = [20] * 200
    shared = [{i // 20 for i in by_shards(sizes, rank=r, world=world)} for r in range(world)]
    assert set.union(*shared) == set(range(200))
    assert sum(len(shards) for shards in shared) <= 200 + LANES - 1


def test_the_order_of_shards_is_by_seed_and_epoch_and_can_be_entered_anywhere():
    shards_N = np.repeat(np.arange(50), 7)
    sampler = EpochSampler(320, seed=1, shuffle=True, of=350, shards_N=shards_N)
    sampler.epoch = 4
    whole = list(sampler)
    sampler.start = 96
    assert list(sampler) == whole[96:]
    parts = []
    for rank in range(4):
        part = EpochSampler(320, seed=1, shuffle=True, rank=rank, world=4, of=350, shards_N=shards_N)
        part.epoch = 4
        parts.append(list(part))
    assert [key for keys in zip(*parts, strict=True) for key in keys] == whole
    sampler.epoch, sampler.start = 5, 0
    assert list(sampler) != whole
    assert len({tuple(by_shards([7] * 50, seed)) for seed in range(5)}) == 5


def test_items_of_one_shard_are_in_a_plain_random_order():
    """Each place of the epoch gets each item equally often: here in 1500 epochs of 6 items, 250 times, give or take."""
    generator = torch.Generator().manual_seed(0)
    orders = np.array([shuffled_by_shards(np.zeros(6, np.int64), generator) for _ in range(1500)])
    counts = np.stack([np.bincount(orders[:, place], minlength=6) for place in range(6)])
    assert abs(counts - 250).max() < 5 * (1500 / 6 * 5 / 6) ** 0.5


def test_without_shuffling_shards_are_read_in_order():
    sampler = EpochSampler(10, 0, shuffle=False, shards_N=np.arange(10) // 3)
    assert [i for _, i in sampler] == list(range(10))
