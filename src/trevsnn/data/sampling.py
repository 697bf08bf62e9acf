"""The order of an epoch's items, and the random numbers that belong to each item."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler


def mix_seed(*numbers: int) -> int:
    """A 63-bit seed from several numbers; neighbouring numbers give unrelated random streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


_RESTORED = ContextVar("restored", default=False)


@contextlib.contextmanager
def generators_restored() -> Iterator[None]:
    """The random generators of Python, NumPy and torch (CPU) have afterwards the states that they had before.

    Within itself it does nothing. That makes a batch quicker: it takes 0.1 ms, nearly all of it NumPy's, as long as a small
    picture takes to be made.
    """
    if _RESTORED.get():
        yield
        return
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        token = _RESTORED.set(True)
        try:
            yield
        finally:
            _RESTORED.reset(token)
            random.setstate(python)
            np.random.set_state(numpy)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with the random generators of Python, NumPy and torch (CPU) seeded, within :func:`generators_restored`.

    Augmentations of timm draw from the first two, those of torchvision from the third.
    """
    with generators_restored():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        # torch.manual_seed would seed every device's generator, which takes a millisecond per picture.
        torch.default_generator.manual_seed(seed)
        yield


LANES = 32  # shards that an epoch reads at a time


def shuffled_by_shards(shards_N: NDArray[np.int64], generator: torch.Generator) -> list[int]:
    """All items at random, so that few shards are read at a time.

    The shards one after the other in a random order, each with its items in a random order, are a line of all items. It is
    cut into ``LANES`` parts of the same length, give or take one, and items are taken from them in turn. So at any time one
    shard is read in each lane, and process r of W, where W divides the number of lanes, keeps to every W-th lane.

    Args:
        shards_N: for each item the number of its shard.
        generator: of the randomness.

    Returns:
        The items' indices.
    """
    shards = torch.as_tensor(shards_N)
    place = torch.randperm(int(shards.max()) + 1, generator=generator)
    items = torch.randperm(len(shards), generator=generator)
    line = items[torch.argsort(place[shards[items]], stable=True)]
    in_turn = pad_sequence(list(line.tensor_split(LANES)), padding_value=-1).flatten()
    return in_turn[in_turn >= 0].tolist()


class EpochSampler(Sampler[tuple[int, int]]):
    """The keys (epoch, index) that one process of a run loads in one epoch.

    The order depends on (seed, epoch) alone, or is that of the part without shuffling. Process r of W takes every W-th
    item from the r-th on: W processes with batches of b see together what one process sees with batches of W * b, and
    each item goes to one process. Set ``epoch``, and ``start``, the items of the epoch (of all processes together) to
    leave out at its beginning, before iterating.

    Args:
        size: items of an epoch.
        seed: of the order.
        shuffle: whether to shuffle.
        rank, world: r and W.
        of: items of the part, if an epoch takes fewer than all; shuffling leaves out others in each epoch.
        shards_N: of the part; shuffle by :func:`shuffled_by_shards`.
    """

    def __init__(
        self, size: int, seed: int, *, shuffle: bool, rank: int = 0, world: int = 1, of: int | None = None,
        shards_N: NDArray[np.int64] | None = None,
    ) -> None:  # fmt: skip
        self.size, self.seed, self.shuffle, self.rank, self.world = size, seed, shuffle, rank, world
        self.of = size if of is None else of
        self.shards_N = shards_N
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return len(range(self.start + self.rank, self.size, self.world))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = list(range(self.of))
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
            if self.shards_N is None:
                order = torch.randperm(self.of, generator=generator).tolist()
            else:
                order = shuffled_by_shards(self.shards_N, generator)
        return ((self.epoch, index) for index in order[self.start + self.rank : self.size : self.world])
