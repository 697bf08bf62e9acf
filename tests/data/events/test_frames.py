"""Events binned to frames, and the cache of frames."""

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
from trevsnn.errors import RunError, UnreadableError


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
    assert np.array_equal(counts, slow)
    assert counts.dtype == (np.uint8 if slow.max() <= 255 else np.uint16)
    if by == "count":
        assert np.ptp(slow.sum((1, 2, 3))) <= 1


def test_times_of_centuries_are_in_their_frames():
    """Whose product with T has no place in 64 bits."""
    events = some_events(5)
    events["t"] = np.array([-(2**52), -(2**52) + 1, 0, 2**51, 2**52 - 1])
    counts = bin_events(events, 4096, 34, (34, 34), "time")
    assert [int(f) for f in np.flatnonzero(counts.sum((1, 2, 3)))] == [0, 2048, 3072, 4095]
    assert counts[0].sum() == 2


def test_binning_refuses_another_sensor_and_names_the_event():
    events = some_events(100, (10, 34))
    events["x"][41], events["y"][41], events["t"] = 10, 7, np.arange(100) * 3
    for stray in (10, -1):
        events["x"][41] = stray
        with pytest.raises(
            RunError, match=rf"event 42 of 100, at 123 us, lies at \({stray}, 7\), outside a sensor of 10 x 34"
        ):
            bin_events(events, 2, 8, (10, 34), "time")
    events["x"][41], events["p"][3] = 0, 2
    with pytest.raises(ValueError, match="an event of polarity 2; known are 0"):
        bin_events(events, 2, 8, (10, 34), "time")
    with pytest.raises(ValueError, match="there are no events"):
        bin_events(events[:0], 2, 8, (10, 34), "time")
    for by in ("time", "count"):
        with pytest.raises(ValueError, match="its events are not in the order of time"):
            bin_events(some_events(9)[::-1], 2, 8, (34, 34), by)


@pytest.mark.parametrize(("count", "dtype"), [(255, np.uint8), (256, np.uint16), (65_536, np.uint32)])
def test_no_count_is_cut_off(count, dtype):
    counts = bin_events(some_events(1).repeat(count), 1, 34, (34, 34), "count")
    assert (counts.max(), counts.sum(), counts.dtype) == (count, count, dtype)


@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    sensor=st.tuples(st.integers(30, 60), st.integers(30, 60)),
    seed=st.integers(0, 99),
)
def test_a_letterbox_scales_both_directions_alike_and_is_empty_beside(size, sensor, seed):
    events = some_events(200, sensor, seed)
    (rows, columns), (width, height) = size, sensor
    counts = bin_events(events, 1, size, sensor, "count", letterbox=True)[0].sum(0)
    scale = min(rows / height, columns / width)
    shown = [max(1, int(side * scale + 1e-9)) for side in (height, width)]
    top, left = (rows - shown[0]) // 2, (columns - shown[1]) // 2
    slow = np.zeros(size, np.int64)
    for x, y, _, _ in events.tolist():
        slow[top + y * shown[0] // height, left + x * shown[1] // width] += 1
    assert np.array_equal(counts, slow)
    assert slow.sum() == 200


def test_a_square_in_a_letterbox_stays_a_square():
    events = some_events(4, (240, 180))
    events["x"], events["y"] = [60, 119, 60, 119], [60, 60, 119, 119]
    counts = bin_events(events, 1, 60, (240, 180), "count", letterbox=True)[0].sum(0)
    assert np.argwhere(counts).tolist() == [
        [22, 15],
        [22, 29],
        [36, 15],
        [36, 29],
    ]  # 60 of 180 pixels are 15 of 45 rows
    squashed = bin_events(events, 1, 60, (240, 180), "count")[0].sum(0)
    assert np.argwhere(squashed).tolist() == [[20, 15], [20, 29], [39, 15], [39, 29]]


def test_bad_event_data_are_said(tmp_path):
    with pytest.raises(RunError, match=r"is no folder: set data\.root"):
        load_events(event_config(tmp_path), "train", 2)
    folder_of_recordings(tmp_path / "data", 5)
    with pytest.raises(RunError, match=r"image_size is 35, but the sensor has 34 x 34 pixels: set it to 34"):
        load_events(event_config(tmp_path, image_size=35), "train", 2)
    with pytest.raises(
        UnreadableError,
        match=r"cat_0.bin does not fit its data set: its event 1 of 300, at .* us, lies at .*, outside a sensor of 17 x 17",
    ):
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
