"""Items of a part as tensors, and loaders of batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trevsnn.data.config import DataConfig, Split
from trevsnn.data.matched import evaluated_splits, load_matched
from trevsnn.data.part import About, Part
from trevsnn.data.pictures.in_memory import Pictures
from trevsnn.data.pictures.on_device import DeviceLoader, OnDevice
from trevsnn.data.pictures.raw import Draw, RawBatch, RawItem, content_of
from trevsnn.data.pictures.transforms import is_fixed
from trevsnn.data.sampling import EpochSampler, generators_restored, mix_seed, seeded
from trevsnn.data.sets import load, transform_of
from trevsnn.data.signals import leave_signals, started
from trevsnn.errors import RunError, UnreadableError

IGNORED = -100  # the label that torch's losses and metrics leave out
MADE = 2**26  # bytes of a part's tensors that are kept, at most
Item = TypeVar("Item")


class _Items(Dataset[Item]):
    """Items by (epoch, index), those of a batch together, as PyTorch's loaders ask for them."""

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Item]:
        with generators_restored():
            return [self[key] for key in keys]


class TensorDataset(_Items[tuple[Tensor, int, int]]):
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
        self.read = part.open if config.reduced else part.read
        self.skip = config.on_unreadable == "skip"
        # Small pictures in memory that nothing changes at random are made into tensors once, not in every epoch.
        self.made: dict[int, Tensor] | None = {} if isinstance(part, Pictures) and is_fixed(self.transform) else None

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, int]:
        index = key[1]
        if self.made is not None and index in self.made:
            return self.made[index], int(self.part.labels_N[index]), -1
        found = self.first_readable(key, lambda other: self.transform(self.read(other)))
        if self.made is not None and found[0].nbytes * len(self) <= MADE:
            self.made[index] = found[0]
        return found

    def first_readable(self, key: tuple[int, int], take: Callable[[int], Item]) -> tuple[Item, int, int]:
        """What ``take`` makes of an index, with random generators seeded for ``key``; its label; and ``unreadable``.

        Raises:
            UnreadableError: an item cannot be read (``on_unreadable="fail"``), or none can.
        """
        epoch, index = key
        unreadable = -1
        for other in chain(range(index, len(self)), range(index)):
            try:
                with seeded(mix_seed(self.seed, epoch, index)):
                    item = take(other)
            except UnreadableError:
                if not self.skip:
                    raise
                unreadable = index
                continue
            ignored = unreadable >= 0 and not self.training
            return item, IGNORED if ignored else int(self.part.labels_N[other]), unreadable
        raise UnreadableError("not one item of the data set can be read: check data.root.")


class RawDataset(_Items[RawItem]):
    """The same items not yet decoded, for ``data.on_device``, by (epoch, index).

    Args:
        items: whose part, seed and policy for what cannot be read this has.
        config: data.* of the run.

    Raises:
        UnreadableError: on access, as :class:`TensorDataset`, if a file is missing or no picture.
    """

    def __init__(self, items: TensorDataset, config: DataConfig) -> None:
        self.items = items
        self.draw = Draw(config) if items.training else None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> RawItem:
        return self.take(key, decode=False)

    def take(self, key: tuple[int, int], *, decode: bool) -> RawItem:
        """An item, decoded in any case or only where the device cannot do it."""

        def take(index: int) -> Any:
            picture = self.items.part.open(index)
            drawn = self.draw(picture.size) if self.draw is not None else None
            return content_of(picture, decode=decode), drawn

        (content, drawn), label, unreadable = self.items.first_readable(key, take)
        return RawItem(content, drawn, label, unreadable, key)


def make_loader(
    dataset: TensorDataset, sampler: EpochSampler, batch_size: int, config: DataConfig, device: torch.device
) -> DataLoader[Any] | DeviceLoader:
    """A loader with ``config.workers`` persistent processes, each four batches ahead.

    In training an incomplete last batch is dropped. With ``on_device`` inputs and labels come out on the device; otherwise
    batches are on the CPU, for a CUDA device in page-locked memory.

    Args:
        dataset, sampler: what is loaded, and in which order.
        batch_size: items of one process's batch.
        config: data.* of the run.
        device: that the network is on.

    Raises:
        UsageError: kornia is needed and not installed (``on_device``).
    """
    ahead: dict[str, Any] = {"prefetch_factor": 4, "persistent_workers": True} if config.workers else {}
    load = partial(
        DataLoader, batch_size=batch_size, sampler=sampler, num_workers=config.workers, drop_last=dataset.training,
        pin_memory=device.type == "cuda", generator=torch.Generator(), worker_init_fn=leave_signals, **ahead,
    )  # fmt: skip
    if not config.on_device:
        return load(dataset)
    raw = RawDataset(dataset, config)
    again = partial(raw.take, decode=True)
    place = OnDevice(config, dataset.part.about, device, again, training=dataset.training)
    return DeviceLoader(load(raw, collate_fn=RawBatch.of), dataset, place)


def batches(loader: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The batches (inputs, labels, unreadable) of a loader; errors of its processes become one sentence.

    Raises:
        UnreadableError: an item cannot be read.
        RunError: a loading process died.
    """
    try:
        with loading_deaths():
            yield from started(loader)
    except RunError as error:  # raised in a loading process: its text is a traceback that ends with the original text
        _, _, own = str(error).rpartition("Error: ")
        raise type(error)(own.strip()) from error
    except (ConnectionError, EOFError) as error:  # the process died while it handed a batch over
        raise _loading_death(error) from error


@contextmanager
def ending_processes(*loaders: DataLoader[Any] | DeviceLoader) -> Iterator[None]:
    """Within it loading processes live from epoch to epoch; after it none of these loaders has any.

    Else they live until the garbage collector finds the loader, which then waits five seconds for each.
    """
    try:
        yield
    finally:
        for loader in loaders:
            inner: Any = loader.loader if isinstance(loader, DeviceLoader) else loader
            if inner._iterator is not None:  # None where there are no processes
                inner._iterator._shutdown_workers()  # PyTorch has no public name for it
                inner._iterator = None


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


def real_items(config: DataConfig, timesteps: int, most: int, about: About | None = None) -> Tensor:
    """The first items, up to ``most``, of the last part (test, else val), prepared as for evaluation, (N, ...): as a network takes
    them whose data ``about`` describes, else as the set's own.

    Raises:
        RunError, UsageError: as :func:`trevsnn.data.sets.load` and :func:`trevsnn.data.matched.load_matched`.
    """
    part = _part(config, evaluated_splits(config)[-1], timesteps, about)
    dataset = TensorDataset(part, config, 0, timesteps=timesteps, training=False)
    return torch.stack([dataset[0, index][0] for index in range(min(most, len(dataset)))])


def calibration_items(config: DataConfig, timesteps: int, most: int, about: About | None = None) -> Tensor:
    """Up to ``most`` items, evenly spread over the training part, prepared as for evaluation, (N, ...): as a network takes
    them whose data ``about`` describes, else as the set's own.

    Raises:
        RunError, UsageError: as :func:`trevsnn.data.sets.load` and :func:`trevsnn.data.matched.load_matched`.
    """
    part = _part(config, "train", timesteps, about)
    dataset = TensorDataset(part, config, 0, timesteps=timesteps, training=False)
    count = min(most, len(dataset))
    return torch.stack([dataset[0, number * len(dataset) // count][0] for number in range(count)])


def _part(config: DataConfig, split: Split, timesteps: int, about: About | None) -> Part:
    return load(config, split, timesteps) if about is None else load_matched(config, split, timesteps, about)
