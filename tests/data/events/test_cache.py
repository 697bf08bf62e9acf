"""The cache of frames: what it is named by, what it holds, and what is not believed."""

import os
from pathlib import Path

import numpy as np
import pytest

from event_files import WRITERS, event_config, folder_of_recordings, some_events, write_nmnist
from trevsnn.data.events.frames import bin_events
from trevsnn.data.events.recordings import read_recording
from trevsnn.data.events.sets import load_events
from trevsnn.data.loading import IGNORED, TensorDataset
from trevsnn.errors import RunError, UnreadableError


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
        load_events(event_config(tmp_path, letterbox=True), "train", 4),
        load_events(event_config(tmp_path, on_unreadable="skip"), "train", 4),
        load_events(event_config(tmp_path, time_unit="ms"), "train", 4),
        load_events(event_config(tmp_path, polarity="binary"), "train", 4),
        load_events(config, "train", 5),
        load_events(config, "val", 4),
        load_events(event_config(tmp_path, workers=2), "train", 4),
    ]
    assert len({part.cache for part in others[:-1]} | {first.cache}) == 12
    assert others[-1].cache == first.cache
    os.utime(first.name(0), ns=(1, 1))
    assert load_events(config, "train", 4).cache != first.cache
    assert not list((tmp_path / "cache").glob("*.part"))


def test_workers_bin_the_same_frames(tmp_path):
    folder_of_recordings(tmp_path / "data", 5)
    one = load_events(event_config(tmp_path), "train", 3)
    two = load_events(event_config(tmp_path, workers=2, cache=str(tmp_path / "other")), "train", 3)
    assert one.cache.read_bytes() == two.cache.read_bytes()


def test_a_cache_that_is_damaged_or_replaced_is_made_anew(tmp_path):
    folder_of_recordings(tmp_path / "data", 5)
    config = event_config(tmp_path)
    part = load_events(config, "train", 4)
    cache, about = part.cache, part.cache.with_suffix(".json")
    content, frames = cache.read_bytes(), [part.read(i).copy() for i in range(len(part))]
    flipped = bytearray(content)
    flipped[-3] ^= 1
    np.save(tmp_path / "other.npy", np.zeros((6, 4, 2, 5, 5)))
    np.save(tmp_path / "alike.npy", np.full((6, 4, 2, 17, 17), 7, np.uint8))
    hurt = [
        bytes(flipped),
        content[:-1],
        content + b"0",
        b"\x93",
        b"",
        *((tmp_path / f"{n}.npy").read_bytes() for n in ("other", "alike")),
    ]
    for bad in hurt:
        cache.write_bytes(bad)
        with pytest.warns(UserWarning, match="is damaged .* and is made anew"):
            again = load_events(config, "train", 4)
        assert all(np.array_equal(again.read(i), frame) for i, frame in enumerate(frames))
        assert cache.read_bytes() == content
    said = about.read_bytes()
    hurt = [
        said.replace(old, new)
        for old, new in ((b"a", b"b"), (b'"dropped"', b'"dropqed"'), (b"{}", b'{"1": "no"}'), (b"{}", b"5"))
    ]
    for bad in (b"{", b"[]", b'{"sha256": 3}', *hurt):
        about.write_bytes(bad)
        with pytest.warns(UserWarning, match="is damaged"):
            load_events(config, "train", 4)
    about.unlink()  # a kill may have come between the two
    assert np.array_equal(load_events(config, "train", 4).read(1), frames[1])


def test_a_cache_is_never_written_through_a_link(tmp_path):
    folder_of_recordings(tmp_path / "data", 5)
    config = event_config(tmp_path)
    cache = load_events(config, "train", 4).cache
    (tmp_path / "mine").write_text("mine")
    for file in (cache, cache.with_suffix(".json")):
        file.unlink()
        file.symlink_to(tmp_path / "mine")
    with pytest.warns(UserWarning, match="is damaged"):
        load_events(config, "train", 4)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not cache.is_symlink()
    assert sorted(p.name for p in cache.parent.iterdir()) == sorted([cache.name, cache.with_suffix(".json").name])


def test_counts_beyond_a_byte_widen_the_whole_file(tmp_path):
    folder_of_recordings(tmp_path / "data", 5)
    busy = some_events(1).repeat(300)
    write_nmnist(tmp_path / "data" / "dog" / "dog_2.bin", busy)
    part = load_events(event_config(tmp_path), "train", 1)
    counts = [part.read(i) for i in range(len(part))]
    assert {c.dtype for c in counts} == {np.dtype("uint16")}
    assert max(c.max() for c in counts) == 300
    expected = bin_events(read_recording(Path(part.name(0))), 1, 17, (34, 34), "count")
    assert np.array_equal(counts[0], expected)
    dataset = TensorDataset(part, event_config(tmp_path), 0, timesteps=1, training=False)
    assert dataset[0, part.files.index("dog/dog_2.bin")][0].max() == 1  # its only pixel is its mean
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_what_cannot_be_read_is_skipped_and_strays_are_dropped_if_that_is_asked_for(tmp_path):
    folder_of_recordings(tmp_path / "data", 12, ("train", "test"))
    stray, folder = some_events(30, (30, 30)), tmp_path / "data" / "train"
    stray["t"] = np.arange(30)
    stray["y"][[7, 9]] = 40
    write_nmnist(folder / "cat" / "cat_7.bin", stray)
    write_nmnist(folder / "cat" / "cat_4.bin", stray[[7, 9]])
    with pytest.raises(
        UnreadableError, match=r"cat_7.bin does not fit its data set: its event 8 of 30, at 7 us, lies at .*, 40\)"
    ):
        load_events(event_config(tmp_path), "train", 2)
    (folder / "dog" / "dog_5.bin").write_bytes(b"123")
    (folder / "dog" / "dog_6.bin").write_bytes(b"")
    config = event_config(tmp_path, on_unreadable="skip")
    for _ in range(2):  # binned, and from the cache
        with pytest.warns(UserWarning, match="recordings") as told:
            part = load_events(config, "train", 2)
        sentences = [str(w.message) for w in told if "recordings" in str(w.message)]
        assert len(sentences) == 2
        assert "3 of 21 recordings cannot be read and are skipped, such as: " in sentences[0]
        assert "2 events outside the sensor were dropped, in 1 of 21 recordings: of " in sentences[1]
        assert f"{folder}/cat/cat_7.bin its event 8 of 30, at 7 us" in sentences[1]
    number = {name: part.files.index(name) for name in part.files}
    kept = np.delete(stray, [7, 9])
    assert np.array_equal(part.read(number["cat/cat_7.bin"]), bin_events(kept, 2, 17, (34, 34), "count"))
    for name, why in (("cat/cat_4.bin", "all of its 2 events lie outside"), ("dog/dog_5.bin", "cannot be read"),
                      ("dog/dog_6.bin", "no events")):  # fmt: skip
        with pytest.raises(UnreadableError, match=why):
            part.read(number[name])
    training = TensorDataset(part, config, 0, timesteps=2, training=True)
    index = number["cat/cat_4.bin"]
    item, label, unreadable = training[0, index]
    assert (label, unreadable) == (int(part.labels_N[index + 1]), index)
    assert np.array_equal(item.numpy(), training[0, index + 1][0].numpy())
    evaluated = TensorDataset(part, config, 0, timesteps=2, training=False)
    assert evaluated[0, index][1:] == (IGNORED, index)


@pytest.mark.parametrize("writer", ["table.csv", "plain.h5", "arrays.npz"])
def test_an_event_far_outside_is_dropped_alone(tmp_path, writer):
    """As -1 comes out of 16 bits without a sign."""
    stray, places = some_events(30), np.arange(30)
    stray["t"], stray["x"][7], stray["y"][9] = places, 65_535, -70_000
    for name in ("cat", "dog"):
        for i in range(3):
            path = tmp_path / "data" / name / f"{i}{Path(writer).suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            WRITERS[writer](path, stray if (name, i) == ("cat", 0) else some_events(30))
    with pytest.raises(UnreadableError, match=r"its event 8 of 30, at 7 us, lies at \(65535, \d+\), outside a sensor"):
        load_events(event_config(tmp_path), "train", 2)
    with pytest.warns(
        UserWarning, match=r"2 events outside the sensor were dropped, in 1 of 2 recordings: .*at \(65535,"
    ):
        part = load_events(event_config(tmp_path, on_unreadable="skip"), "train", 2)
    kept = np.delete(stray, [7, 9])
    assert np.array_equal(part.read(0), bin_events(kept, 2, 17, (34, 34), "count"))


def test_recordings_without_a_piece_are_left_out_if_that_is_asked_for(tmp_path):
    folder_of_recordings(tmp_path / "data", 5)
    write_nmnist(tmp_path / "data" / "cat" / "cat_1.bin", some_events(3)[:1])
    (tmp_path / "data" / "dog" / "dog_1.bin").write_bytes(b"1")
    with pytest.raises(RunError, match=r"cat_1.bin lasts 0.001 ms and has no piece"):
        load_events(event_config(tmp_path, piece_ms=8.9), "train", 2)
    with pytest.warns(UserWarning, match=r"left out 2 of 10 recordings, the first because .*cat_1.bin lasts 0.001 ms"):
        part = load_events(event_config(tmp_path, piece_ms=8.9, on_unreadable="skip"), "train", 2)
    assert len(part) == 8 * 7


def test_nothing_is_left_of_a_cache_of_which_no_recording_can_be_read(tmp_path):
    for name in ("cat", "dog"):
        for i in range(3):
            write_nmnist(tmp_path / "data" / name / f"{i}.bin", some_events(0))
    with pytest.raises(UnreadableError, match=r"not one of 2 recordings can be read: .* no events"):
        load_events(event_config(tmp_path, on_unreadable="skip"), "train", 2)
    assert not list((tmp_path / "cache").iterdir())


def test_what_is_said_of_plain_tables_reaches_their_frames(tmp_path):
    """The same recordings in words, and in HDF5 with polarities of -1 and 1 and times in seconds, whole and in pieces."""
    h5py = pytest.importorskip("h5py")
    folder_of_recordings(tmp_path / "data", 4)
    for file in (tmp_path / "data").rglob("*.bin"):
        events, table = read_recording(file), tmp_path / "tables" / file.parent.name / f"{file.stem}.h5"
        table.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(table, "w") as out:
            out["x"], out["y"], out["t"] = events["x"], events["y"], events["t"] / 1e6
            out["p"] = events["p"].astype(np.int8) * 2 - 1
    root = str(tmp_path / "tables")
    with pytest.raises(UnreadableError, match=r"data\.time_unit"):
        load_events(event_config(tmp_path, root=root), "train", 2)
    with pytest.raises(UnreadableError, match=r"state --polarity signed, or --data\.polarity signed"):
        load_events(event_config(tmp_path, root=root, time_unit="s"), "train", 2)
    for piece_ms in (None, 8.9):
        told = event_config(tmp_path, root=root, time_unit="s", polarity="signed", piece_ms=piece_ms)
        tables, words = (load_events(c, "train", 2) for c in (told, event_config(tmp_path, piece_ms=piece_ms)))
        assert len(tables) == len(words)
        assert all(np.array_equal(tables.read(i), words.read(i)) for i in range(len(words)))
