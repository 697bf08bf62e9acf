"""Recordings of event cameras: decoding, binning, splits, cache, augmentation, training."""

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import shared_data
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.events.frames import bin_events
from trevsnn.data.events.recordings import EVENT, read_recording
from trevsnn.data.events.sets import GESTURES, list_recordings, load_events
from trevsnn.data.events.transforms import EventDrop, frames_transform
from trevsnn.data.part import UnreadableError, cut_tails
from trevsnn.errors import RunError


def some_events(n: int, sensor: tuple[int, int] = (34, 34), seed: int = 0) -> np.ndarray:
    dice = np.random.default_rng(seed)
    events = np.empty(n, EVENT)
    events["x"], events["y"] = dice.integers(0, sensor[0], n), dice.integers(0, sensor[1], n)
    events["t"], events["p"] = np.sort(dice.integers(0, 100_000, n)), dice.integers(0, 2, n)
    return events


def write_nmnist(path: Path, events: np.ndarray) -> None:
    """40-bit words x8 y8 p1 t23, big endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = np.empty((len(events), 5), np.uint8)
    words[:, 0], words[:, 1] = events["x"], events["y"]
    high = events["p"].astype(np.int64) << 7 | events["t"] >> 16
    words[:, 2], words[:, 3], words[:, 4] = high, events["t"] >> 8 & 255, events["t"] & 255
    path.write_bytes(words.tobytes())


def write_aedat3(path: Path, events: np.ndarray, invalid: int = 0) -> None:
    """A packet of another type, then packets of 100 polarity events; the first ``invalid`` ones marked as such."""
    content = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    header = np.array([2 | 1 << 16, 8, 4, 0, 2, 2, 2], "<i4").tobytes()
    content += header + bytes(16)
    for start in range(0, len(events), 100):
        part = events[start : start + 100]
        valid = np.arange(start, start + len(part)) >= invalid
        address = part["x"].astype(np.uint32) << 17 | part["y"].astype(np.uint32) << 2
        address |= part["p"].astype(np.uint32) << 1 | valid
        words = np.empty(len(part), [("a", "<u4"), ("t", "<i4")])
        words["a"], words["t"] = address, part["t"]
        content += np.array([1 | 1 << 16, 8, 4, 0, len(part), len(part), len(part)], "<i4").tobytes() + words.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


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
    with pytest.raises(RunError, match=r"needs h5py: pip install 'trevsnn\[events\]'"):
        read_recording(tmp_path / "a.h5")


@settings(max_examples=40)
@given(
    n=st.integers(1, 400),
    frames=st.integers(1, 9),
    size=st.sampled_from([5, 16, 30]),
    sensor=st.sampled_from([(30, 30), (34, 31)]),
    by=st.sampled_from(["count", "time"]),
    seed=st.integers(0, 99),
)
def test_binning_counts_every_event_once(n, frames, size, sensor, by, seed):
    events = some_events(n, sensor, seed)
    counts = bin_events(events, frames, size, sensor, by)
    slow = np.zeros((frames, 2, size, size), np.int64)
    span = int(events["t"][-1] - events["t"][0]) + 1
    for i, (x, y, t, p) in enumerate(events.tolist()):
        frame = i * frames // n if by == "count" else (t - int(events["t"][0])) * frames // span
        slow[frame, p, y * size // sensor[1], x * size // sensor[0]] += 1
    assert np.array_equal(counts, np.minimum(slow, 255))
    if by == "count":
        assert np.ptp(slow.sum((1, 2, 3))) <= 1


def test_binning_refuses_another_sensor():
    with pytest.raises(ValueError, match="outside a sensor of 10 x 34 pixels"):
        bin_events(some_events(100), 2, 8, (10, 34), "time")


def folder_of_recordings(root: Path, per_class: int, parts: tuple[str, ...] = ("",)) -> None:
    for part in parts:
        for label, name in enumerate(("cat", "dog")):
            for i in range(per_class):
                events = some_events(300, seed=1000 * label + i)
                if label:  # classes differ, so that training has something to learn
                    events["y"] = events["y"] // 2
                write_nmnist(root / part / name / f"{name}_{i}.bin", events)


def test_folders_without_a_split_are_cut_by_the_ends_of_their_classes(tmp_path):
    folder_of_recordings(tmp_path, 20)
    parts = {split: list_recordings(tmp_path, split) for split in ("train", "val", "test")}
    assert [len(p) for p in parts.values()] == [32, 4, 4]
    assert parts["test"].files == [f"{c}/{c}_{i}.bin" for c in ("cat", "dog") for i in (18, 19)]  # 9 before 10
    assert parts["val"].files == [f"{c}/{c}_{i}.bin" for c in ("cat", "dog") for i in (16, 17)]
    assert len({f for p in parts.values() for f in p.files}) == 40
    with pytest.raises(RunError, match="class 0 has 2 items"):
        cut_tails(np.zeros(2, np.int64))


def test_the_split_of_cifar10_dvs_is_fixed(tmp_path):
    """By name alone: 1,000 recordings of each class, as the published archive holds them."""
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    for name in names:
        (tmp_path / name).mkdir()
        for i in range(1000):
            (tmp_path / name / f"cifar10_{name}_{i}.aedat").touch()
    parts = {split: list_recordings(tmp_path, split) for split in ("train", "val", "test")}
    assert [len(p) for p in parts.values()] == [8000, 1000, 1000]
    assert {split: p.digest()[:12] for split, p in parts.items()} == SPLITS_OF_CIFAR10_DVS
    assert parts["test"].files[0] == "airplane/cifar10_airplane_900.aedat"


SPLITS_OF_CIFAR10_DVS = {"train": "c01c7132ae85", "val": "07745eba0c5d", "test": "944ef6551b8f"}


def test_train_and_test_folders_are_taken_and_validation_is_cut_from_train(tmp_path):
    folder_of_recordings(tmp_path, 20, ("Train", "Test"))
    parts = {split: list_recordings(tmp_path, split) for split in ("train", "val", "test")}
    assert [len(p) for p in parts.values()] == [36, 4, 40]
    assert parts["test"].root.name == "Test"
    assert np.bincount(parts["val"].labels_N).tolist() == [2, 2]
    assert not set(parts["train"].files) & set(parts["val"].files)
    folder_of_recordings(tmp_path, 3, ("val",))
    parts = {split: list_recordings(tmp_path, split) for split in ("train", "val", "test")}
    assert [len(p) for p in parts.values()] == [40, 6, 40]


def gestures(root: Path) -> np.ndarray:
    """Twelve people, one recording each with all gestures, in the layout of DVS128 Gesture."""
    root.mkdir(parents=True, exist_ok=True)
    events = some_events(1100, (128, 128))
    events["t"] = np.arange(1100) * 10
    names = [f"user{i:02d}_led.aedat" for i in range(1, 13)]
    for name in names:
        write_aedat3(root / name, events)
        lines = [f"{g + 1},{g * 1000},{g * 1000 + 500}" for g in range(11)]
        (root / f"{Path(name).stem}_labels.csv").write_text("\n".join(["class,startTime_usec,endTime_usec", *lines]))
    (root / "trials_to_train.txt").write_text("\n".join(names[:10]) + "\n")
    (root / "trials_to_test.txt").write_text("\n".join(names[10:]) + "\n")
    return events


def test_gestures_are_cut_out_of_recordings_by_person(tmp_path):
    events = gestures(tmp_path / "g")
    config = DataConfig(name="dvs128-gesture", root=str(tmp_path / "g"), image_size=32, cache=str(tmp_path / "c"))
    parts = {split: load_events(config, split, 5) for split in ("train", "val", "test")}
    assert [len(p) for p in parts.values()] == [99, 11, 22]
    assert {f[:6] for f in parts["val"].files} == {"user10"}
    assert {f[:6] for f in parts["test"].files} == {"user11", "user12"}
    assert parts["train"].classes == GESTURES
    assert parts["train"].labels_N[:11].tolist() == list(range(11))
    expected = bin_events(events[300:350], 5, 32, (128, 128), "count")
    assert np.array_equal(parts["test"].read(3), expected)
    (tmp_path / "g" / "user12_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n12,0,5\n")
    with pytest.raises(RunError, match=r"user12_led_labels.csv names a class outside 1..11"):
        load_events(config, "test", 5)
    (tmp_path / "g" / "user12_led_labels.csv").unlink()
    with pytest.raises(RunError, match=r"user12_led_labels.csv is missing or damaged"):
        load_events(config, "test", 5)


def event_config(tmp_path: Path, **options: object) -> DataConfig:
    return DataConfig(**{
        "name": "recordings", "root": str(tmp_path / "data"), "sensor": (34, 34), "image_size": 17,
        "cache": str(tmp_path / "cache"), **options,
    })  # fmt: skip


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
        load_events(event_config(tmp_path, bin_by="time"), "train", 4),
        load_events(event_config(tmp_path, sensor=(34, 40)), "train", 4),
        load_events(config, "train", 5),
        load_events(config, "val", 4),
        load_events(event_config(tmp_path, workers=2), "train", 4),
    ]
    assert len({part.cache for part in others[:5]} | {first.cache}) == 6
    assert others[5].cache == first.cache
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


def test_event_augmentation_moves_all_frames_of_a_recording_alike():
    config = DataConfig(name="recordings", image_size=16, flip=True, crop_padding=2)
    counts = bin_events(some_events(2000), 1, 16, (34, 34), "count").repeat(3, axis=0)
    plain = frames_transform(config, training=False)(counts)
    assert torch.equal(plain[0], plain[2])
    assert plain[plain > 0].mean() == pytest.approx(1, rel=1e-6)
    torch.manual_seed(0)
    changed = [frames_transform(config, training=True)(counts) for _ in range(8)]
    assert all(torch.equal(frames[0], frames[2]) for frames in changed)
    assert sum(not torch.equal(frames, plain) for frames in changed) >= 7


def test_event_drop_takes_at_most_half_and_adds_nothing():
    torch.manual_seed(0)
    frames = torch.ones(8, 2, 20, 20)
    drop = EventDrop(1.0)
    kept = torch.stack([drop(frames) for _ in range(200)]).flatten(1).mean(1)
    assert 0.45 < float(kept.min()) < 0.6  # up to a half, but for rounding
    assert float(kept.max()) <= 1
    assert torch.equal(EventDrop(0.0)(frames), frames)
    assert {float(v) for v in torch.unique(drop(frames))} <= {0.0, 1.0}


SMALL = [
    "--model.channels", "[4,8]", "--model.timesteps", "3", "--batch_size", "8", "--optim.warmup_epochs", "0",
    "--accelerator", "cpu", "--recipe", "n-mnist",
]  # fmt: skip


@pytest.mark.parametrize("loss", ["temporal", "deep_supervision"])
def test_training_evaluating_and_predicting_recordings(tmp_path, capsys, loss):
    folder_of_recordings(tmp_path / "data", 20, ("train", "test"))
    run = str(tmp_path / "run")
    options = ["--data.root", str(tmp_path / "data"), "--data.cache", str(tmp_path / "cache"), "--data.event_drop", "0.2",
               "--model.num_classes", "2", "--run", run, "--epochs", "20", "--loss", loss, "--optim.lr", "0.008",
               "--data.image_size", "16", "--ema_decay", "null"]  # fmt: skip
    assert main(["train", *SMALL, *options]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["items"] == {"train": 36, "val": 4, "test": 40}
    assert summary["test_accuracy"] > 0.8
    capsys.readouterr()
    file = str(tmp_path / "data" / "test" / "dog" / "dog_3.bin")
    assert main(["predict", run, file, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["class"] == "dog"
    shutil.rmtree(tmp_path / "cache")  # binning again, with a bar that must not stand in the JSON
    assert main(["evaluate", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == summary["test_accuracy"]
    picture = tmp_path / "over-time.png"
    assert main(["stream", run, file, "--json", "--picture", str(picture)]) == 0
    frames = json.loads(capsys.readouterr().out)
    assert [frame["frame"] for frame in frames] == [1, 2, 3, 4]
    events = read_recording(Path(file))
    assert frames[-1]["until"] == events["t"][-1] - events["t"][0] > frames[0]["until"] > 0
    assert frames[-1]["probabilities"] == row["probabilities"]  # those of the whole clip, bit for bit
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["stream", run, file]) == 0
    assert capsys.readouterr().out.count("dog") >= 1
    (tmp_path / "short.bin").write_bytes(b"12345678")
    for command in ("predict", "stream"):
        assert main([command, run, str(tmp_path / "short.bin")]) == 1
        assert "short.bin cannot be read as a recording" in capsys.readouterr().err
    assert main(["stream", "digits", file]) == 2
    assert "digits was trained on pictures: use trevsnn predict" in capsys.readouterr().err


def test_real_nmnist_recordings(tmp_path):
    archive = shared_data("nmnist-small.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    config = DataConfig(name="n-mnist", root=str(tmp_path / "NMNIST"), image_size=34, cache=str(tmp_path / "cache"))
    parts = {split: load_events(config, split, 4) for split in ("train", "val", "test")}
    assert [len(p) for p in parts.values()] == [900, 100, 100]
    digests = {split: part.digest()[:12] for split, part in parts.items()}
    assert digests == SPLITS_OF_SMALL_NMNIST
    counts = parts["train"].read(0)
    assert counts.shape == (4, 2, 34, 34)
    assert counts.sum() == len(read_recording(Path(parts["train"].name(0))))


SPLITS_OF_SMALL_NMNIST = {"train": "1feb004bb43a", "val": "b920ab40ba0b", "test": "48dd78cb1c7c"}


def test_real_gesture_clips_make_a_folder_of_recordings(tmp_path):
    for clip in shared_data("dvsgesture-clips").iterdir():
        for copy in range(3):
            target = tmp_path / "data" / clip.stem / f"{copy}.bs3"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(clip)
    config = event_config(tmp_path, sensor=(128, 128), image_size=32, workers=2)
    part = load_events(config, "train", 8)
    assert len(part) == 10
    assert part.read(0).sum() == min(255 * 10**6, len(read_recording(Path(part.name(0)))))
