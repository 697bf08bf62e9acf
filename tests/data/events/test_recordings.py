"""Recordings: decoded, compared with other libraries' reading, damaged ones named."""

import sys

import numpy as np
import pytest

from conftest import shared_data
from event_files import some_events, write_aedat3, write_nmnist
from trevsnn.cli.main import main
from trevsnn.data.events.recordings import read_recording
from trevsnn.data.part import UnreadableError
from trevsnn.errors import RunError, UsageError


def test_nmnist_words_and_their_overflow(tmp_path):
    events = some_events(500)
    write_nmnist(tmp_path / "a.bin", events)
    assert np.array_equal(read_recording(tmp_path / "a.bin"), events)
    overflow = np.array([[0, 240, 0, 0, 0], [1, 2, 128, 0, 7]], np.uint8).tobytes()
    (tmp_path / "b.bin").write_bytes((tmp_path / "a.bin").read_bytes() + overflow)
    last = read_recording(tmp_path / "b.bin")
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
    with pytest.raises(UnreadableError, match=r"b.h5 cannot be read as a recording .it has no datasets x, y, t and p"):
        read_recording(tmp_path / "b.h5")


#: Number of events, first one, and largest t, as Tonic 1.7.0, aedat 2.3.0 and expelliarmus 1.1.12 read the files.
OTHERS = {
    "tonic_sample_nmnist.bin": (4325, (7, 15, 654, 1), 311_175),
    "tonic_sample.aedat4": (111_954, (154, 204, 1605537493718345, 0), 1605537494308262),
    "expelliarmus_NCARS_obj_004397_td.dat": (4407, (6, 18, 0, 1), 99_937),
}


@pytest.mark.parametrize("name", OTHERS)
def test_real_recordings_are_read_as_other_libraries_read_them(name):
    count, first, last = OTHERS[name]
    events = read_recording(shared_data("event-format-samples", name))
    assert (len(events), events[0].tolist(), events["t"].max()) == (count, first, last)


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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"1234567", "it ends within an event, 2 of 5 bytes into it"),
        ("a.bin", b"", "holds no events"),
        ("a.bs3", b"12345678", "it ends within an event"),
        ("a.aedat", b"nothing of the kind", "it does not begin with #!AER-DAT"),
        ("a.aedat", b"#!AER-DAT4.0\r\n", "it is of version 4"),
        ("a.aedat", b"#!AER-DAT2.0\r\n\0\0\0\0\0", "it ends within an event"),
        ("a.aedat", b"#!AER-DAT3.1\r\nnothing", "its header has no end"),
        ("a.aedat", b"#!AER-DAT3.1\r\n#!END-HEADER\r\n1234", "it ends within a packet"),
        ("a.aedat4", b"#!AER-DAT4.0\r\n", "cannot be read as a recording"),
        ("a.dat", b"% Version 2\n\0", "cannot be read as a recording|holds no events"),
        ("a.h5", b"not hdf5", "cannot be read as a recording"),
    ],
)
def test_damaged_recordings_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableError, match=message) as raised:
        read_recording(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


def test_truncated_real_recordings_are_named(tmp_path):
    for folder, name in (("event-format-samples", n) for n in ("tonic_sample_nmnist.bin", "tonic_sample.aedat4")):
        whole = shared_data(folder, name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UnreadableError, match=name):
            read_recording(tmp_path / name)


def test_unknown_and_missing_recordings_and_extras_are_named(tmp_path, monkeypatch):
    with pytest.raises(RunError, match=r"no recordings end in .raw; known are .aedat"):
        read_recording(tmp_path / "a.raw")
    with pytest.raises(UnreadableError, match=r"a.bin does not exist"):
        read_recording(tmp_path / "a.bin")
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"needs h5py: pip install 'trevsnn\[events\]'"):
        read_recording(tmp_path / "a.h5")


def test_a_missing_extra_is_an_error_of_usage(tmp_path, monkeypatch, capsys):
    """Exit code 2 and the line that installs it, in training, prediction, and the check of a data set."""
    for name in ("h5py", "aedat"):
        monkeypatch.setitem(sys.modules, name, None)
    for part in ("train", "test"):
        for number in range(20):
            file = tmp_path / "data" / part / "hand" / f"{number}.h5"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
    run = tmp_path / "run"
    data = ["--data.root", str(tmp_path / "data"), "--data.cache", str(tmp_path / "cache"), "--accelerator", "cpu"]
    assert main(["train", "--recipe", "n-mnist", *data, "--run", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.endswith("trevsnn: error: reading these recordings needs h5py: pip install 'trevsnn[events]'.\n")
    assert not run.exists()
    assert not list((tmp_path / "cache").glob("*"))
    (tmp_path / "clip.aedat4").write_bytes(b"x")
    assert main(["predict", "n-mnist", str(tmp_path / "clip.aedat4")]) == 2
    assert "needs aedat: pip install 'trevsnn[events]'" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / "data")]) == 2
    assert "needs h5py: pip install 'trevsnn[events]'" in capsys.readouterr().err
