"""The order of an epoch's items, and the random numbers that belong to each item."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


def mix_seed(*numbers: int) -> int:
    """A 63-bit seed from several numbers; neighbouring numbers give unrelated random streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with the random generators of Python, NumPy and torch (CPU) seeded; their states are restored afterwards.

    Augmentations of timm draw from the first two, those of torchvision from the third.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        # torch.manual_seed would seed every device's generator, which takes a millisecond per picture.
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


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
    """

    def __init__(
        self, size: int, seed: int, *, shuffle: bool, rank: int = 0, world: int = 1, of: int | None = None
    ) -> None:
        self.size, self.seed, self.shuffle, self.rank, self.world = size, seed, shuffle, rank, world
        self.of = size if of is None else of
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return len(range(self.start + self.rank, self.size, self.world))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = list(range(self.of))
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
            order = torch.randperm(self.of, generator=generator).tolist()
        return ((self.epoch, index) for index in order[self.start + self.rank : self.size : self.world])
