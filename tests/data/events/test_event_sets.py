"""Event data sets: their parts, and real recordings."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import shared_data
from event_files import event_config, folder_of_recordings, some_events, write_aedat3
from trevsnn.data.config import DataConfig
from trevsnn.data.events.excerpts import file_of
from trevsnn.data.events.frames import bin_events
from trevsnn.data.events.recordings import read_recording
from trevsnn.data.events.sets import GESTURES, classes_of, list_recordings, load_events
from trevsnn.data.splitting import ordered_split, time_split
from trevsnn.errors import RunError


def test_folders_without_a_split_are_cut_by_the_ends_of_their_classes(tmp_path):
    folder_of_recordings(tmp_path, 20)
    parts = {split: list_recordings(tmp_path, split) for split in ("train", "val", "test")}
    assert [len(p) for p in parts.values()] == [32, 4, 4]
    assert parts["test"].files == [f"{c}/{c}_{i}.bin" for c in ("cat", "dog") for i in (18, 19)]  # 9 before 10
    assert parts["val"].files == [f"{c}/{c}_{i}.bin" for c in ("cat", "dog") for i in (16, 17)]
    assert len({f for p in parts.values() for f in p.files}) == 40
    with pytest.raises(
        RunError,
        match=r"class .cat. has 2 of the three recordings that are needed .* train/CLASS and val/CLASS, or by a column part",
    ):
        ordered_split(np.zeros(2, np.int64), ["cat"])


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


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("trials_to_train.txt", b"", "trials_to_train.txt names no recordings with trials of part train"),
        ("trials_to_train.txt", b"\xff", "trials_to_train.txt is missing or damaged"),
        ("trials_to_train.txt", b"../user01_led.aedat", r"names \.\./user01_led.aedat, which is not in its folder"),
        (
            "user01_led_labels.csv",
            b"class,startTime_usec,endTime_usec\n1,0,%d" % 10**30,
            "it has a trial from 0 to 1000",
        ),
        ("user01_led_labels.csv", b"class,startTime_usec,endTime_usec\n1,9,5", "it has a trial from 9 to 5 us"),
        ("user01_led_labels.csv", None, "it is a pipe or a device, and no regular file"),
    ],
)
def test_a_damaged_list_of_gestures_is_named(tmp_path, file, content, message):
    gestures(tmp_path)
    (tmp_path / file).unlink()
    if content is None:
        os.mkfifo(tmp_path / file)
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(RunError, match=message):
        list_recordings(tmp_path, "train")


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


@given(counts=st.lists(st.integers(3, 60), min_size=1, max_size=5))
def test_pieces_are_split_by_time_within_each_recording(counts):
    """Train before validation before test, about 70, 15 and 15 %, and one at least of each."""
    recordings = [name for number, n in enumerate(counts) for name in [f"r{number}"] * n]
    parts = time_split(recordings)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(recordings)))
    for number, n in enumerate(counts):
        own = [[i for i in part.tolist() if recordings[i] == f"r{number}"] for part in parts.values()]
        assert all(own)
        assert max(own[0]) < min(own[1]) <= max(own[1]) < min(own[2])
        assert all(abs(len(part) - share * n) < 1.2 for part, share in zip(own, (0.7, 0.15, 0.15), strict=True))


def test_a_recording_with_two_pieces_cannot_be_split_by_time():
    with pytest.raises(RunError, match=r"b.bin has 2 of the pieces of data.piece_ms: three are needed"):
        time_split(["a.bin"] * 3 + ["b.bin"] * 2)


def test_pieces_of_folders_without_a_split_are_split_by_time(tmp_path):
    folder_of_recordings(tmp_path / "data", 2)
    config = event_config(tmp_path, piece_ms=8.9)  # about 100 ms: 11 pieces of each
    parts = {split: load_events(config, split, 2) for split in ("train", "val", "test")}
    assert [len(p) for p in parts.values()] == [28, 8, 8]
    first = [[name for name in part.files if name.startswith("cat/cat_0")] for part in parts.values()]
    t = read_recording(tmp_path / "data" / "cat" / "cat_0.bin")["t"]
    starts = [int(t[0]) + 8900 * k for k in range(11)]
    assert first == [[f"cat/cat_0.bin@{s}-{s + 8900}" for s in part] for part in (starts[:7], starts[7:9], starts[9:])]
    assert np.bincount(parts["test"].labels_N).tolist() == [4, 4]
    both = load_events(event_config(tmp_path, piece_ms=8.9, task="direction"), "val", 2)
    assert both.files[:2] == [parts["val"].files[0], f"{parts['val'].files[0]} reversed"]
    assert len({p.cache for p in (*parts.values(), both)}) == 4
    other = load_events(event_config(tmp_path, piece_ms=8.0), "train", 2)
    assert other.cache != parts["train"].cache


def test_pieces_of_sets_with_a_split_stay_with_their_recording(tmp_path):
    folder_of_recordings(tmp_path / "data", 20, ("train", "test"))
    seen = []
    for split in ("train", "val", "test"):
        whole = load_events(event_config(tmp_path), split, 2)
        pieces = load_events(event_config(tmp_path, piece_ms=30.0), split, 2)
        assert list(dict.fromkeys(map(file_of, pieces.files))) == whole.files
        assert len(pieces) == 3 * len(whole)
        assert pieces.labels_N.tolist() == np.repeat(whole.labels_N, 3).tolist()
        seen += [str(pieces.root / file_of(name)) for name in whole.files]
    assert len(set(seen)) == len(seen) == 80


def test_pieces_of_gestures_stay_with_their_people(tmp_path):
    gestures(tmp_path / "g")
    config = DataConfig(
        name="dvs128-gesture", root=str(tmp_path / "g"), image_size=32, cache=str(tmp_path / "c"), piece_ms=0.2
    )
    part = load_events(config, "test", 2)
    assert part.files[:3] == [f"user11_led.aedat@{a}-{a + 200}" for a in (0, 200, 1000)]
    assert len(part) == 2 * 11 * 2
    assert {name[:6] for name in part.files} == {"user11", "user12"}


def test_real_gesture_clips_in_pieces(tmp_path):
    """A folder that a user makes of the ten clips, one of each class, is split by time."""
    for clip in shared_data("dvsgesture-clips").iterdir():
        folder = tmp_path / "data" / clip.stem
        folder.mkdir(parents=True)
        (folder / clip.name).symlink_to(clip)
    config = event_config(tmp_path, sensor=(128, 128), image_size=32, piece_ms=100.0)
    parts = {split: load_events(config, split, 4) for split in ("train", "val", "test")}
    assert [len(p) for p in parts.values()] == [90, 20, 30]  # 14 pieces of each: 9, 2 and 3
    for part in parts.values():
        assert len(set(np.bincount(part.labels_N).tolist())) == 1
        assert min(int(part.read(i).sum()) for i in range(len(part))) > 1000
    t = read_recording(shared_data("dvsgesture-clips", "3.bs3"))["t"]
    counts = [int(((t - t[0]) // 100_000 == k).sum()) for k in range(14)]
    number = parts["train"].classes.index("3")
    read = [int(p.read(i).sum()) for p in parts.values() for i in np.flatnonzero(p.labels_N == number)]
    assert read == counts


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


def test_a_root_that_lies_one_folder_too_high_is_named(tmp_path):
    folder_of_recordings(tmp_path / "a" / "NMNIST", 10, ("Train", "Test"))
    folder_of_recordings(tmp_path / "b" / "set", 3)
    for above, inner in (("a", "NMNIST"), ("b", "set")):
        root = tmp_path / above
        with pytest.raises(RunError, match=rf"holds one folder alone, {inner}: did you mean .*{above}/{inner}\?"):
            list_recordings(root, "train")
        assert len(classes_of(root / inner)) == len(list_recordings(root / inner, "train").classes)
