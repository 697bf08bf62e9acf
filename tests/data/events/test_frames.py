"""Events binned to frames, and the cache of frames."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from event_files import event_config, folder_of_recordings, some_events
from trevsnn.data.events.frames import bin_events
from trevsnn.data.events.recordings import read_recording
from trevsnn.data.events.sets import load_events
from trevsnn.data.files import read_inputs
from trevsnn.data.loading import TensorDataset
from trevsnn.data.part import UnreadableError
from trevsnn.errors import RunError


@settings(max_examples=40)
@given(
    n=st.integers(1, 400),
    frames=st.integers(1, 9),
    size=st.sampled_from([5, 16, 30, (5, 16), (30, 7)]),
    sensor=st.sampled_from([(30, 30), (34, 31)]),
    by=st.sampled_from(["count", "time"]),
    seed=st.integers(0, 99),
)
def test_binning_counts_every_event_once(n, frames, size, sensor, by, seed):
    events = some_events(n, sensor, seed)
    counts = bin_events(events, frames, size, sensor, by)
    rows, columns = (size, size) if isinstance(size, int) else size
    slow = np.zeros((frames, 2, rows, columns), np.int64)
    span = int(events["t"][-1] - events["t"][0]) + 1
    for i, (x, y, t, p) in enumerate(events.tolist()):
        frame = i * frames // n if by == "count" else (t - int(events["t"][0])) * frames // span
        slow[frame, p, y * rows // sensor[1], x * columns // sensor[0]] += 1
    assert np.array_equal(counts, np.minimum(slow, 255))
    if by == "count":
        assert np.ptp(slow.sum((1, 2, 3))) <= 1


def test_binning_refuses_another_sensor():
    with pytest.raises(ValueError, match="outside a sensor of 10 x 34 pixels"):
        bin_events(some_events(100), 2, 8, (10, 34), "time")


def test_the_cache_is_keyed_by_everything_frames_depend_on(tmp_path):
    folder_of_recordings(tmp_path / "data", 5)
    config = event_config(tmp_path)
    first = load_events(config, "train", 4)
    stamp = first.cache.stat().st_mtime_ns
    again = load_events(config, "train", 4)
    assert again.cache == first.cache
    assert again.cache.stat().st_mtime_ns == stamp
    expected = bin_events(read_recording(Path(first.name(2))), 4, 17, (34, 34), "count")
    assert np.array_equal(first.read(2), expected)
    others = [
        load_events(event_config(tmp_path, image_size=16), "train", 4),
        load_events(event_config(tmp_path, image_size=(16, 17)), "train", 4),
        load_events(event_config(tmp_path, image_size=(17, 16)), "train", 4),
        load_events(event_config(tmp_path, bin_by="time"), "train", 4),
        load_events(event_config(tmp_path, sensor=(34, 40)), "train", 4),
        load_events(config, "train", 5),
        load_events(config, "val", 4),
        load_events(event_config(tmp_path, workers=2), "train", 4),
    ]
    assert len({part.cache for part in others[:7]} | {first.cache}) == 8
    assert others[7].cache == first.cache
    os.utime(first.name(0), ns=(1, 1))
    assert load_events(config, "train", 4).cache != first.cache
    assert not list((tmp_path / "cache").glob("*.part"))


def test_workers_bin_the_same_frames(tmp_path):
    folder_of_recordings(tmp_path / "data", 5)
    one = load_events(event_config(tmp_path), "train", 3)
    two = load_events(event_config(tmp_path, workers=2, cache=str(tmp_path / "other")), "train", 3)
    assert one.cache.read_bytes() == two.cache.read_bytes()


def test_bad_event_data_are_said(tmp_path):
    with pytest.raises(RunError, match=r"is no folder: set data\.root"):
        load_events(event_config(tmp_path), "train", 2)
    folder_of_recordings(tmp_path / "data", 5)
    with pytest.raises(RunError, match=r"image_size is 35, but the sensor has 34 x 34 pixels: set it to 34"):
        load_events(event_config(tmp_path, image_size=35), "train", 2)
    with pytest.raises(UnreadableError, match=r"cat_0.bin does not fit its data set: it has an event at"):
        load_events(event_config(tmp_path, sensor=(17, 17)), "train", 2)
    (tmp_path / "data" / "cat" / "cat_1.bin").write_bytes(b"123")
    with pytest.raises(UnreadableError, match=r"cat_1.bin cannot be read"):
        load_events(event_config(tmp_path), "train", 2)
    assert not list((tmp_path / "cache").glob("*"))
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        load_events(event_config(tmp_path, cache=str(tmp_path / "file" / "x")), "test", 2)


def test_frames_of_a_wide_sensor_are_wide(tmp_path):
    """Training, which shifts and turns them, too; and what is larger than the sensor is refused where it is read."""
    folder_of_recordings(tmp_path / "data", 5)
    config = event_config(
        tmp_path,
        sensor=(60, 34),
        image_size=(17, 30),
        crop_padding=3,
        rotation=9.0,
        flip=True,
        event_drop=0.5,
        erasing=0.5,
    )
    part = load_events(config, "train", 4)
    expected = bin_events(read_recording(Path(part.name(1))), 4, (17, 30), (60, 34), "count")
    assert np.array_equal(part.read(1), expected)
    assert part.read(1).shape == (4, 2, 17, 30)
    training = TensorDataset(part, config, 0, timesteps=4, training=True)
    assert {training[1, index][0].shape for index in range(4)} == {(4, 2, 17, 30)}
    evaluated = TensorDataset(part, config, 0, timesteps=4, training=False)[0, 1][0]
    assert np.allclose(evaluated.numpy(), expected / expected[expected > 0].mean())
    assert torch.equal(read_inputs([Path(part.name(1))], config, part.about, 4)[0], evaluated)
    for size, most in (((35, 30), "[34, 30]"), ((34, 61), "[34, 60]")):
        wrong = event_config(tmp_path, sensor=(60, 34), image_size=size)
        text = rf"image_size is \[{size[0]}, {size[1]}\], but the sensor has 60 x 34 pixels \(width x height\): set it to {re.escape(most)}"
        with pytest.raises(RunError, match=text):
            load_events(wrong, "train", 2)
        with pytest.raises(RunError, match=text):
            read_inputs([Path(part.name(1))], wrong, part.about, 2)
