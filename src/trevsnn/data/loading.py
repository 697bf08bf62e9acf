"""Items of a part as tensors, and loaders of batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trevsnn.data.config import DataConfig
from trevsnn.data.part import Part, UnreadableError
from trevsnn.data.sampling import EpochSampler, mix_seed, seeded
from trevsnn.data.sets import load, splits, transform_of
from trevsnn.errors import RunError

IGNORED = -100  # the label that torch's losses and metrics leave out


class TensorDataset(Dataset[tuple[Tensor, int, int]]):
    """Items of a part as (float32 tensor, label, unreadable), by (epoch, index).

    An item's augmentation depends on epoch, index and seed alone, whatever process loads it and whatever was loaded
    before. ``unreadable`` is -1, or the index if that item could not be read and was skipped
    (``on_unreadable="skip"``): then tensor and label are those of the next item that can be read, in evaluation with
    the label ``IGNORED``.

    Args:
        part: the items.
        config: data.* of the run.
        seed: of the augmentation.
        timesteps: T of the network.
        training: whether to augment.

    Raises:
        UsageError: as :func:`trevsnn.data.sets.transform_of`.
        UnreadableError: on access, an item cannot be read (``on_unreadable="fail"``), or none can.
    """

    def __init__(self, part: Part, config: DataConfig, seed: int, *, timesteps: int, training: bool) -> None:
        self.part, self.seed, self.training = part, seed, training
        self.transform = transform_of(config, part.about, timesteps, training=training)
        self.skip = config.on_unreadable == "skip"

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, int]:
        epoch, index = key
        unreadable = -1
        for other in chain(range(index, len(self)), range(index)):
            try:
                item = self.part.read(other)
            except UnreadableError:
                if not self.skip:
                    raise
                unreadable = index
                continue
            with seeded(mix_seed(self.seed, epoch, index)):
                tensor = self.transform(item)
            ignored = unreadable >= 0 and not self.training
            return tensor, IGNORED if ignored else int(self.part.labels_N[other]), unreadable
        raise UnreadableError("not one item of the data set can be read: check data.root.")


def make_loader(
    dataset: TensorDataset, sampler: EpochSampler, batch_size: int, config: DataConfig, *, pin: bool
) -> DataLoader[Any]:
    """A loader with ``config.workers`` persistent processes, each four batches ahead.

    In training an incomplete last batch is dropped.

    Args:
        dataset, sampler: what is loaded, and in which order.
        batch_size: items of one process's batch.
        config: data.* of the run.
        pin: put batches in page-locked memory, for a CUDA device.
    """
    ahead: dict[str, Any] = {"prefetch_factor": 4, "persistent_workers": True} if config.workers else {}
    return DataLoader(
        dataset, batch_size, sampler=sampler, num_workers=config.workers, drop_last=dataset.training, pin_memory=pin,
        generator=torch.Generator(), **ahead,
    )  # fmt: skip


def batches(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The batches (inputs, labels, unreadable) of a loader; errors of its processes become one sentence.

    Raises:
        UnreadableError: an item cannot be read.
        RunError: a loading process died.
    """
    try:
        with loading_deaths():
            yield from loader
    except RunError as error:  # raised in a loading process: its text is a traceback that ends with the original text
        _, _, own = str(error).rpartition("Error: ")
        raise type(error)(own.strip()) from error
    except (ConnectionError, EOFError) as error:  # the process died while it handed a batch over
        raise _loading_death(error) from error


@contextmanager
def loading_deaths() -> Iterator[None]:
    """Turn the death of a loading process into one sentence. A context manager, or a decorator.

    PyTorch learns of the death by a signal, whose handler raises wherever the training process happens to be, so this
    must enclose everything that is done while there is a loader.

    Raises:
        RunError: a loading process died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):  # "in DataLoader worker process N" is an error of one that lives
            raise
        raise _loading_death(error) from error


def _loading_death(error: Exception) -> RunError:
    what = str(error).partition("\n")[0].rstrip(".") or "its pipe has ended"
    return RunError(
        f"a loading process died ({what}): the machine may be out of memory; lower data.workers or batch_size, and "
        "go on with --resume."
    )


def real_items(config: DataConfig, timesteps: int, most: int) -> Tensor:
    """The first items, up to ``most``, of the last part (test, else val), prepared as for evaluation, (N, ...).

    Raises:
        RunError, UsageError: as :func:`trevsnn.data.sets.load`.
    """
    part = load(config, splits(config)[-1], timesteps)
    dataset = TensorDataset(part, config, 0, timesteps=timesteps, training=False)
    return torch.stack([dataset[0, index][0] for index in range(min(most, len(dataset)))])


def calibration_items(config: DataConfig, timesteps: int, most: int) -> Tensor:
    """Up to ``most`` items, evenly spread over the training part, prepared as for evaluation, (N, ...).

    Raises:
        RunError, UsageError: as :func:`trevsnn.data.sets.load`.
    """
    dataset = TensorDataset(load(config, "train", timesteps), config, 0, timesteps=timesteps, training=False)
    count = min(most, len(dataset))
    return torch.stack([dataset[0, number * len(dataset) // count][0] for number in range(count)])
