"""Recordings: whole, sorted, of regular files, missing ones and missing libraries named."""

import os
import sys

import numpy as np
import pytest

from conftest import shared_data
from event_files import some_events, write_aedat3, write_nmnist
from trevsnn.cli.main import main
from trevsnn.data.events.formats import clock
from trevsnn.data.events.recordings import open_recording, read_recording
from trevsnn.errors import RunError, UnreadableError, UsageError


def test_nmnist_words_and_their_overflow(tmp_path):
    events = some_events(500)
    write_nmnist(tmp_path / "a.bin", events)
    assert np.array_equal(read_recording(tmp_path / "a.bin"), events)
    overflow = np.array([[0, 240, 0, 0, 0], [1, 2, 128, 0, 7]], np.uint8).tobytes()
    (tmp_path / "b.bin").write_bytes((tmp_path / "a.bin").read_bytes() + overflow)
    last = read_recording(str(tmp_path / "b.bin"))
    assert (1, 2, 8192 + 7, 1) in last.tolist()
    assert len(last) == 501


def test_aedat3_skips_other_packets_and_invalid_events(tmp_path):
    events = some_events(250, (128, 128))
    write_aedat3(tmp_path / "a.aedat", events, invalid=3)
    assert np.array_equal(read_recording(tmp_path / "a.aedat"), events[3:])


def test_hdf5_at_the_top_and_in_a_group(tmp_path):
    h5py = pytest.importorskip("h5py")
    events = some_events(50)
    for group in ("/", "events"):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name in "xytp":
                file.require_group(group)[name] = events[name]
        assert np.array_equal(read_recording(tmp_path / "a.h5"), events)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(UnreadableError, match=r"b.h5 cannot be read as a recording: it has no datasets x, y, t and p"):
        read_recording(tmp_path / "b.h5")


def test_real_dvs128_recordings_fill_the_sensor_in_both_polarities():
    for name, count in (("Tesoura.aedat", 143_655), ("Lapiseira.aedat", 126_164)):
        events = read_recording(shared_data("dvs128-objects", name))
        assert len(events) == count
        assert 18 < (events["t"][-1] - events["t"][0]) / 1e6 < 19
        assert 0.5 < events["p"].mean() < 0.7
        assert (events["x"].min(), events["x"].max(), events["y"].min(), events["y"].max()) == (0, 127, 0, 127)


def test_real_gesture_clips_are_whole():
    for clip in shared_data("dvsgesture-clips").iterdir():
        events = read_recording(clip)
        assert events["x"].max() < 128
        assert events["y"].max() < 128
        assert set(np.unique(events["p"])) == {0, 1}
        assert 1.4e6 < events["t"][-1] - events["t"][0] < 1.46e6


def test_truncated_real_recordings_are_named(tmp_path):
    for folder, name in (("event-format-samples", n) for n in ("tonic_sample_nmnist.bin", "tonic_sample.aedat4")):
        whole = shared_data(folder, name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UnreadableError, match=name):
            read_recording(tmp_path / name)


def test_unknown_and_missing_recordings_and_extras_are_named(tmp_path, monkeypatch):
    with pytest.raises(RunError, match=r"no recordings end in .mp4; known are .aedat, .aedat4, .bin, "):
        read_recording(tmp_path / "a.mp4")
    for name in ("a.bin", "no folder"):
        with pytest.raises(UnreadableError, match=rf"{name} does not exist"):
            read_recording(tmp_path / name)
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"needs h5py: pip install 'trevsnn\[events\]'"):
        read_recording(tmp_path / "a.h5")


def test_a_missing_extra_is_an_error_of_usage(tmp_path, monkeypatch, capsys):
    """Exit code 2 and the line that installs it, in training, prediction, and the check of a data set."""
    for name in ("h5py", "lz4.frame"):
        monkeypatch.setitem(sys.modules, name, None)
    for part in ("train", "test"):
        for number in range(40):
            file = tmp_path / "data" / part / ("hand", "foot")[number % 2] / f"{number}.h5"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
    run = tmp_path / "run"
    data = ["--data.root", str(tmp_path / "data"), "--data.cache", str(tmp_path / "cache"), "--accelerator", "cpu"]
    assert main(["train", "--recipe", "n-mnist", *data, "--model.num_classes", "2", "--run", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.endswith("trevsnn: error: reading these recordings needs h5py: pip install 'trevsnn[events]'.\n")
    assert not run.exists()
    assert not list((tmp_path / "cache").glob("*"))
    (tmp_path / "clip.aedat4").write_bytes(b"x")
    assert main(["predict", "n-mnist", str(tmp_path / "clip.aedat4")]) == 2
    assert "needs lz4: pip install 'trevsnn[events]'" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / "data")]) == 2
    assert "needs h5py: pip install 'trevsnn[events]'" in capsys.readouterr().err


def test_events_out_of_order_are_sorted_and_counted_and_equal_times_keep_their_order(tmp_path):
    events = some_events(6)
    events["t"], events["x"] = [5, 1, 5, 2, 9, 9], range(6)
    write_nmnist(tmp_path / "a.bin", events)
    recording = open_recording(tmp_path / "a.bin")
    assert recording.events["x"].tolist() == [1, 3, 0, 2, 4, 5]
    assert recording.events["t"].tolist() == [1, 2, 5, 5, 9, 9]
    assert recording.disordered == 2  # those at 5
    assert recording.sensor is None


def test_only_regular_files_are_read(tmp_path):
    events = some_events(9)
    write_nmnist(tmp_path / "a.bin", events)
    (tmp_path / "link.bin").symlink_to("a.bin")
    assert np.array_equal(read_recording(tmp_path / "link.bin"), events)
    (tmp_path / "folder.bin").mkdir()
    os.mkfifo(tmp_path / "pipe.bin")
    (tmp_path / "device.bin").symlink_to("/dev/zero")
    (tmp_path / "loop.bin").symlink_to("loop.bin")
    for name in ("folder", "pipe", "device"):
        for ending in (".bin", ".h5"):
            path = tmp_path / f"{name}.bin"
            path = path if ending == ".bin" else path.rename(path.with_suffix(ending))
            with pytest.raises(
                UnreadableError, match=rf"{name}{ending} cannot be read as a recording: it is no regular file"
            ):
                read_recording(path)
    with pytest.raises(UnreadableError, match=r"loop.bin cannot be read as a recording"):
        read_recording(tmp_path / "loop.bin")


def test_a_recording_of_too_many_events_is_refused_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "MOST_EVENTS", 100)
    write_nmnist(tmp_path / "a.bin", some_events(100))
    assert len(read_recording(tmp_path / "a.bin")) == 100
    write_nmnist(tmp_path / "a.bin", some_events(101))
    with pytest.raises(UnreadableError, match=r"it holds more than 100 events: cut it into shorter recordings"):
        read_recording(tmp_path / "a.bin")
