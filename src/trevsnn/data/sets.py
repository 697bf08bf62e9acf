"""Every data set by its name: its parts, and their items as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trevsnn.data.events.frames import bin_events, frames_transform
from trevsnn.data.events.recordings import read_recording
from trevsnn.data.events.sets import SENSORS, load_events
from trevsnn.data.part import About, Part, Split, UnreadableError
from trevsnn.data.pictures.folders import folder_splits, load_folder, read_rgb
from trevsnn.data.pictures.in_memory import load_small
from trevsnn.data.pictures.transforms import picture_transform
from trevsnn.data.sampling import EpochSampler, mix_seed, seeded
from trevsnn.errors import RunError
from trevsnn.run.config import DataConfig

EVENT_SETS = (*SENSORS, "recordings")
FOLDER_SETS = ("imagenet", "tiny-imagenet", "folder")
IGNORED = -100  # the label of an item that counts for nothing, as torch's losses and metrics know it


def is_event(config: DataConfig) -> bool:
    """Whether the set is one of recordings, not of pictures."""
    return config.name in EVENT_SETS


def splits(config: DataConfig) -> list[Split]:
    """The parts the data set has. Raises RunError where a folder has none."""
    if config.name == "digits":
        return ["train", "val"]
    return folder_splits(config) if config.name in FOLDER_SETS else ["train", "val", "test"]


def load(config: DataConfig, split: Split, timesteps: int) -> Part:
    """Read one part of the data set that ``config`` names; recordings as frames of ``timesteps``.

    Raises:
        RunError: there is no such part, or files are missing or damaged.
    """
    if is_event(config):
        return load_events(config, split, timesteps)
    return load_folder(config, split) if config.name in FOLDER_SETS else load_small(config, split)


def transform_of(config: DataConfig, about: About, *, training: bool) -> Any:
    """From what :meth:`trevsnn.data.part.Part.read` gives to a float32 tensor."""
    if is_event(config):
        return frames_transform(config, training=training)
    return picture_transform(config, about, training=training)


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


def read_inputs(paths: list[Path], config: DataConfig, about: About, timesteps: int) -> Tensor:
    """Files of the kind a run was trained on as one batch, prepared as for evaluation.

    Args:
        paths: pictures or recordings.
        config: data.* of the run.
        about: the run's data.
        timesteps: T of the run.

    Raises:
        UnreadableError: a file is missing or of another kind.
    """
    transform = transform_of(config, about, training=False)
    if is_event(config):
        sensor = SENSORS.get(config.name, config.sensor)
        return torch.stack([transform(_frames(path, config, timesteps, sensor)) for path in paths])
    return torch.stack([transform(_picture(path, about.channels)) for path in paths])


def _picture(path: Path, channels: int) -> Any:
    picture = read_rgb(path)
    return picture.convert("L") if channels == 1 else picture


def _frames(path: Path, config: DataConfig, timesteps: int, sensor: tuple[int, int]) -> Any:
    try:
        return bin_events(read_recording(path), timesteps, config.image_size, sensor, config.bin_by)
    except ValueError as error:
        raise UnreadableError(f"{path} does not fit the run's data set: {error}.") from error
