"""Items as tensors, batches, and what goes wrong in loading processes."""

import multiprocessing
import os
import random
import re
import shutil
import signal
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from helpers import folder_config, folder_of_pictures, picture
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.loading import (
    IGNORED,
    RawDataset,
    TensorDataset,
    batches,
    ending_processes,
    loading_deaths,
    make_loader,
)
from trevsnn.data.pictures.folders import load_folder
from trevsnn.data.sampling import EpochSampler
from trevsnn.data.sets import load
from trevsnn.errors import RunError, UnreadableError


def test_an_item_costs_the_same_in_a_large_set():
    part = load(DataConfig(), "train", 1)
    dataset = TensorDataset(part, DataConfig(), 0, timesteps=1, training=True)
    item = dataset[0, 5][0]
    part.labels_N = np.zeros(2_000_000, np.int64)
    tracemalloc.start()
    try:
        assert torch.equal(dataset[0, 5][0], item)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1e6  # bytes; a list of the items alone would be 16 times that


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    config = DataConfig(crop_padding=2, rotation=20.0, erasing=0.5, flip=True)
    pictures = load(config, "train", 1)
    dataset = TensorDataset(pictures, config, seed=3, timesteps=1, training=True)
    first = [dataset[1, i][0] for i in range(20)]
    torch.manual_seed(99)
    np.random.randn()  # so that NumPy holds the second of a pair of numbers
    generators = [torch.get_rng_state().tolist(), repr(np.random.get_state(legacy=False)), random.getstate()]
    again = [dataset[1, i][0] for i in reversed(range(20))][::-1]
    together = [item[0] for item in dataset.__getitems__([(1, i) for i in (7, *range(20))])][1:]  # as a loader asks
    assert [torch.get_rng_state().tolist(), repr(np.random.get_state(legacy=False)), random.getstate()] == generators
    for others in (again, together):
        assert all(torch.equal(a, b) for a, b in zip(first, others, strict=True))
    assert not any(torch.equal(dataset[2, i][0], first[i]) for i in range(20))
    other = TensorDataset(pictures, config, seed=4, timesteps=1, training=True)
    assert not any(torch.equal(other[1, i][0], first[i]) for i in range(20))


@pytest.mark.parametrize("on_device", [False, True])
def test_a_batch_restores_the_random_generators_once(tmp_path, monkeypatch, on_device):
    """And is what its items are one by one, for each of which they are restored."""
    folder_of_pictures(tmp_path, ("train", "val"))
    config = folder_config(tmp_path, on_device=on_device, flip=True, crop_padding=1, rotation=20.0, erasing=0.5)
    items = TensorDataset(load_folder(config, "train"), config, 3, timesteps=1, training=True)
    dataset = RawDataset(items, config) if on_device else items
    keys = [(1, i) for i in range(8)]
    read, calls = np.random.get_state, []
    monkeypatch.setattr(np.random, "get_state", lambda *args, **options: calls.append(1) or read(*args, **options))
    before = [torch.get_rng_state().tolist(), repr(read()), random.getstate()]
    one_by_one = [dataset[key] for key in keys]
    assert len(calls) == 8
    (together,) = DataLoader(dataset, batch_sampler=[keys], collate_fn=list, generator=torch.Generator())
    assert len(calls) == 9
    assert [torch.get_rng_state().tolist(), repr(read()), random.getstate()] == before
    if on_device:
        assert [item.drawn for item in together] == [item.drawn for item in one_by_one]
        assert len({item.drawn for item in together}) == 8
    else:
        assert all(torch.equal(one[0], other[0]) for one, other in zip(together, one_by_one, strict=True))


def damage(root: Path) -> None:
    """The sixth picture of the cats cut off, the eighth gone."""
    file = root / "train" / "cat" / "005.png"
    file.write_bytes(file.read_bytes()[:100])
    (root / "train" / "cat" / "007.png").unlink()


def test_unreadable_pictures_fail_or_are_skipped_and_named(tmp_path):
    folder_of_pictures(tmp_path, ("train", "val"))
    for policy in ("fail", "skip"):
        part = load_folder(folder_config(tmp_path), "train")
        if policy == "fail":
            damage(tmp_path)
        dataset = TensorDataset(part, folder_config(tmp_path, on_unreadable=policy), 0, timesteps=1, training=True)
        held_out = TensorDataset(part, folder_config(tmp_path, on_unreadable=policy), 0, timesteps=1, training=False)
        if policy == "fail":
            with pytest.raises(UnreadableError, match=r"cat/005.png cannot be read as a picture .*: replace it"):
                dataset[0, 5]
            with pytest.raises(UnreadableError, match=r"cat/007.png does not exist: has the data folder moved"):
                dataset[0, 7]
            picture(5).save(tmp_path / "train" / "cat" / "007.png")
            continue
        assert [dataset[0, i][2] for i in range(8)] == [-1] * 5 + [5] + [-1] * 2
        assert dataset[0, 5][1] == part.labels_N[6]
        assert held_out[0, 5][1] == IGNORED
        assert held_out[0, 6][1] == part.labels_N[6]
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(UnreadableError, match="not one item of the data set can be read"):
        dataset[0, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_goes_wrong_in_loading_processes_is_one_sentence(tmp_path, workers):
    folder_of_pictures(tmp_path, ("train", "val"))
    part = load_folder(folder_config(tmp_path), "train")
    damage(tmp_path)
    options = folder_config(tmp_path, workers=workers)
    sampler = EpochSampler(len(part), 0, shuffle=False)
    loader = make_loader(
        TensorDataset(part, options, 0, timesteps=1, training=False), sampler, 4, options, torch.device("cpu")
    )
    with ending_processes(loader), pytest.raises(UnreadableError) as raised:
        list(batches(loader))
    assert re.fullmatch(
        r"\S+cat/005.png cannot be read as a picture \(.*\): replace it, or remove it.", str(raised.value)
    )


class Dying(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


# PyTorch looks for dead processes at any signal, and again while its iterator is deleted, where nobody can catch it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loading_process_that_dies_is_said():
    with pytest.raises(
        RunError, match=r"a loading process died \(.*(killed by signal: Killed|exited unexpectedly).*lower data.workers"
    ):
        list(batches(DataLoader(Dying(), 2, num_workers=1)))


class Counting(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return index


def test_loading_processes_live_from_epoch_to_epoch_and_end_with_the_training():
    loader = DataLoader(Counting(), 2, num_workers=2, persistent_workers=True)
    with ending_processes(loader, DataLoader(Counting(), 2)):
        epochs = []
        for _ in range(2):
            assert torch.cat(list(batches(loader))).tolist() == list(range(8))
            epochs.append({process.pid for process in multiprocessing.active_children()})
        assert epochs[0] == epochs[1]
        assert len(epochs[0]) >= 2
    assert not epochs[0] & {process.pid for process in multiprocessing.active_children()}
    with ending_processes(loader):  # it can be used again
        assert torch.cat(list(batches(loader))).tolist() == list(range(8))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loading_process_that_dies_while_a_step_is_computed_is_said():
    @loading_deaths()
    def train():
        loader = DataLoader(Counting(), 2, num_workers=1, persistent_workers=True)
        for _ in batches(loader):
            assert loader._iterator is not None
            time.sleep(0.5)  # until it waits for work: where it is killed with a lock in hand, PyTorch waits forever
            os.kill(loader._iterator._workers[0].pid, signal.SIGKILL)
            time.sleep(10)  # the signal's handler raises in here

    with pytest.raises(RunError, match=r"a loading process died \(.*killed by signal: Killed.*lower data.workers"):
        train()


def test_an_error_inside_a_loading_process_that_lives_is_no_death():
    class Wrong(Counting):
        def __getitem__(self, index):
            raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match=r"(?s)in DataLoader worker process 0.*a mistake"):
        list(batches(DataLoader(Wrong(), 2, num_workers=1)))


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_loading_process_that_dies_while_it_hands_a_batch_over_is_said(error):
    class Torn(torch.utils.data.Dataset):
        def __getitem__(self, index):
            raise error

        def __len__(self):
            return 4

    with pytest.raises(RunError, match=r"a loading process died \(.+\): the machine may be out of memory"):
        list(batches(DataLoader(Torn(), 2)))


def test_training_skips_and_counts_unreadable_pictures(tmp_path, capsys):
    folder_of_pictures(tmp_path / "data", ("train", "val"))
    damage(tmp_path / "data")
    options = [
        "train", "--data.name", "folder", "--data.root", str(tmp_path / "data"), "--model.channels", "[4,8]",
        "--model.num_classes", "2", "--model.in_chans", "3", "--model.timesteps", "1", "--batch_size", "8",
        "--epochs", "2", "--data.workers", "1", "--accelerator", "cpu",
    ]  # fmt: skip
    assert main([*options, "--run", str(tmp_path / "fails")]) == 1
    error = capsys.readouterr().err
    assert "cat/005.png cannot be read as a picture" in error
    assert error.count("\n") == 1
    assert main([*options, "--run", str(tmp_path / "run"), "--data.on_unreadable", "skip"]) == 0
    assert "skipped" in (out := " ".join(capsys.readouterr().out.split()))
    assert "cat/005.png: it cannot be read" in out
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    place = rows[0].split(",").index("unreadable")
    assert all(0 < int(row.split(",")[place]) <= 2 for row in rows[1:])
