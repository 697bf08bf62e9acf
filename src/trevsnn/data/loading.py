"""Items of a part of a data set as tensors, in batches, by loading processes."""

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

IGNORED = -100  # the label of an item that counts for nothing, as torch's losses and metrics know it


class TensorDataset(Dataset[tuple[Tensor, int, int]]):
    """Items of a part as (tensor, label, unreadable): the last is -1, or the index of an item that could not be read.

    An item is asked for as (epoch, index): its augmentation depends on these and the seed alone, whatever process loads
    it and whatever was loaded before. With ``on_unreadable="skip"`` the next item that can be read stands in for one
    that cannot in training; in evaluation it gets the label IGNORED.

    Raises:
        UnreadableError: of an item, with ``on_unreadable="fail"``; or of all of them.
    """

    def __init__(self, part: Part, config: DataConfig, seed: int, *, training: bool) -> None:
        self.part, self.seed, self.training = part, seed, training
        self.transform = transform_of(config, part.about, training=training)
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
    """A loader with ``config.workers`` processes that stay, each four batches ahead; the last batch may be short only
    in evaluation.

    Args:
        dataset, sampler: what is loaded, and in which order.
        batch_size: items of one process's batch.
        config: data.* of the run.
        pin: in page-locked memory, for a CUDA device.
    """
    ahead: dict[str, Any] = {"prefetch_factor": 4, "persistent_workers": True} if config.workers else {}
    return DataLoader(
        dataset, batch_size, sampler=sampler, num_workers=config.workers, drop_last=dataset.training, pin_memory=pin,
        generator=torch.Generator(), **ahead,
    )  # fmt: skip


def batches(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The batches of a loader, with what goes wrong in its processes in one sentence.

    Raises:
        RunError: an item cannot be read, or a loading process died.
    """
    try:
        with loading_deaths():
            yield from loader
    except RunError as error:  # of another process: its text ends with the original's
        _, _, own = str(error).rpartition("Error: ")
        raise type(error)(own.strip()) from error
    except (ConnectionError, EOFError) as error:  # it died while it handed a batch over
        raise _loading_death(error) from error


@contextmanager
def loading_deaths() -> Iterator[None]:
    """Say in one sentence that a loading process died.

    PyTorch notices it by a signal, whose handler raises wherever the process that trains happens to be: this belongs
    around all that is done while a loader is there, and also serves as a decorator.

    Raises:
        RunError: a loading process died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):  # nor is an error "in DataLoader worker process N" a death
            raise
        raise _loading_death(error) from error


def _loading_death(error: Exception) -> RunError:
    what = str(error).partition("\n")[0].rstrip(".") or "its pipe has ended"
    return RunError(
        f"a loading process died ({what}): the machine may be out of memory; lower data.workers or batch_size, and "
        "go on with --resume."
    )


def real_items(config: DataConfig, timesteps: int, most: int) -> Tensor:
    """The first items, up to ``most``, of the part that a run is judged by, prepared as for evaluation."""
    dataset = TensorDataset(load(config, splits(config)[-1], timesteps), config, 0, training=False)
    return torch.stack([dataset[0, index][0] for index in range(min(most, len(dataset)))])


def calibration_items(config: DataConfig, timesteps: int, most: int) -> Tensor:
    """Up to ``most`` items from all over the training part, prepared as for evaluation."""
    dataset = TensorDataset(load(config, "train", timesteps), config, 0, training=False)
    count = min(most, len(dataset))
    return torch.stack([dataset[0, number * len(dataset) // count][0] for number in range(count)])
