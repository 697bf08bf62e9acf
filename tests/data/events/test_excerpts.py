"""Excerpts of recordings: spans of time, and time reversed."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import shared_data
from event_files import event_config, folder_of_recordings, some_events, write_nmnist
from trevsnn.data.config import DataConfig
from trevsnn.data.events.cache import EventFrames
from trevsnn.data.events.excerpts import (
    both_directions,
    cut_listing,
    file_of,
    first_piece,
    read_excerpt,
    reverse,
)
from trevsnn.data.events.frames import bin_events
from trevsnn.data.events.recordings import read_recording
from trevsnn.data.events.sets import load_events
from trevsnn.data.part import FileList
from trevsnn.errors import RunError, UnreadableError


def test_an_item_s_name_says_what_of_its_file_it_is(tmp_path):
    events = some_events(300)
    write_nmnist(tmp_path / "a@7-9.bin", events)  # a name of a file that looks like a span is none
    assert np.array_equal(read_excerpt(tmp_path, "a@7-9.bin"), events)
    span = read_excerpt(tmp_path, "a@7-9.bin@20000-50000")
    assert np.array_equal(span, events[(events["t"] >= 20000) & (events["t"] < 50000)])
    assert np.array_equal(read_excerpt(tmp_path, "a@7-9.bin@20000-50000 reversed"), reverse(span))
    assert file_of("a@7-9.bin@20000-50000 reversed") == "a@7-9.bin"
    with pytest.raises(UnreadableError, match=r"a@7-9.bin@900000-900001 holds no events"):
        read_excerpt(tmp_path, "a@7-9.bin@900000-900001")
    write_nmnist(tmp_path / "a@7-9.bin", events[:10])
    assert len(read_excerpt(tmp_path, "a@7-9.bin")) == 10
    with pytest.raises(UnreadableError, match=r"b.bin does not exist"):
        read_excerpt(tmp_path, "b.bin@1-2")


@settings(max_examples=40)
@given(n=st.integers(1, 300), by=st.sampled_from(["count", "time"]), seed=st.integers(0, 99))
def test_reversed_events_run_backwards_and_one_frame_cannot_tell(n, by, seed):
    events = some_events(n, seed=seed)
    backwards = reverse(events)
    assert np.all(np.diff(backwards["t"]) >= 0)
    assert (backwards["t"][0], backwards["t"][-1]) == (events["t"][0], events["t"][-1])
    assert np.array_equal(np.diff(backwards["t"]), np.diff(events["t"])[::-1])
    for name in "xyp":
        assert np.array_equal(backwards[name], events[name][::-1])
    assert np.array_equal(reverse(backwards), events)
    one = [bin_events(e, 1, 17, (34, 34), by) for e in (events, backwards)]
    assert np.array_equal(one[0], one[1])
    if by == "count":
        whole = n - n % 4  # so that four frames hold as many events each
        if whole:
            frames = [bin_events(e, 4, 17, (34, 34), by) for e in (events[:whole], reverse(events[:whole]))]
            assert np.array_equal(frames[0], frames[1][::-1])


def test_reversed_frames_of_equal_time_are_the_frames_backwards():
    """Where no event lies on an edge between frames: microseconds 0..999 in frames of 250, events at 10, 260, ..."""
    events = some_events(8)
    events["t"] = [0, 10, 260, 270, 510, 740, 760, 999]
    frames = [bin_events(e, 4, 17, (34, 34), "time") for e in (events, reverse(events))]
    assert frames[0].sum((1, 2, 3)).tolist() == [2, 2, 2, 2]
    assert np.array_equal(frames[0], frames[1][::-1])


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
@pytest.mark.parametrize("by", ["count", "time"])
def test_both_directions_of_a_recording_are_in_the_same_part(tmp_path, parts, by):
    folder_of_recordings(tmp_path / "data", 20, parts)
    seen = []
    for split in ("train", "val", "test"):
        usual = load_events(event_config(tmp_path, bin_by=by), split, 4)
        both = load_events(event_config(tmp_path, bin_by=by, task="direction"), split, 4)
        assert both.classes == ("forward", "reversed")
        assert both.labels_N.tolist() == [0, 1] * len(usual)
        assert both.files == both_directions(usual).files
        assert [both.files[i] for i in range(0, len(both), 2)] == usual.files
        for i in range(len(usual)):
            assert np.array_equal(both.read(2 * i), usual.read(i))
            events = reverse(read_recording(Path(usual.name(i))))
            assert np.array_equal(both.read(2 * i + 1), bin_events(events, 4, 17, (34, 34), by))
        seen += [str(both.root / file_of(f)) for f in dict.fromkeys(map(file_of, both.files))]
        assert both.cache != usual.cache
        assert both.digest() != usual.digest()
    assert len(seen) == len(set(seen)) == 40 * len(parts)


def test_the_cache_knows_directions_apart(tmp_path):
    folder_of_recordings(tmp_path / "data", 3)
    root = tmp_path / "data"
    config = event_config(tmp_path)
    names = ["cat/cat_0.bin", "cat/cat_0.bin reversed", "cat/cat_0.bin@0-50000", "cat/cat_0.bin@0-50000 reversed"]
    parts = [EventFrames(FileList(root, [name], [0], ["a"]), 2, config) for name in names]
    assert len({part.cache for part in parts}) == 4
    for name, part in zip(names, parts, strict=True):
        assert np.array_equal(part.read(0), bin_events(read_excerpt(root, name), 2, 17, (34, 34), "count"))


def test_real_digits_in_both_directions(tmp_path):
    with tarfile.open(shared_data("nmnist-small.tar.gz")) as file:
        file.extractall(tmp_path, filter="data")
    config = DataConfig(
        name="n-mnist", root=str(tmp_path / "NMNIST"), image_size=34, cache=str(tmp_path / "cache"), task="direction"
    )
    one, four = load_events(config, "test", 1), load_events(config, "test", 4)
    assert len(one) == len(four) == 200
    for i in range(0, 200, 2):
        assert np.array_equal(one.read(i), one.read(i + 1))
        assert not np.array_equal(four.read(i), four.read(i + 1))
        assert four.read(i).sum() == four.read(i + 1).sum() == one.read(i).sum()


def test_pieces_begin_with_the_first_event_and_the_rest_and_silence_are_left_out(tmp_path):
    events = some_events(7)
    events["t"] = [5, 5, 1004, 1005, 2500, 4006, 5003]  # pieces of 1 ms: [5, 1005), [1005, 2005), ...
    write_nmnist(tmp_path / "a.bin", events)
    listing = FileList(tmp_path, ["a.bin", "a.bin@1000-4100"], [1, 0], ["x", "y"])
    for workers in (0, 1):
        pieces = cut_listing(listing, 1.0, workers)
        assert pieces.files == [
            "a.bin@5-1005", "a.bin@1005-2005", "a.bin@2005-3005",
            # 3005-4005 holds no event, and the rest begins at 4005: its last event is at 5003
            "a.bin@1000-2000", "a.bin@2000-3000",  # of a trial, from its beginning on
        ]  # fmt: skip
        assert pieces.labels_N.tolist() == [1, 1, 1, 0, 0]
        assert pieces.classes == ("x", "y")
    assert [read_excerpt(tmp_path, name)["t"].tolist() for name in pieces.files[:3]] == [[5, 5, 1004], [1005], [2500]]
    assert first_piece(events, 1.0)["t"].tolist() == [5, 5, 1004]
    events["t"][-1] = 5004  # now the fifth piece is whole
    write_nmnist(tmp_path / "b.bin", events)
    assert cut_listing(FileList(tmp_path, ["b.bin"], [0], ["x"]), 1.0, 0).files[-1] == "b.bin@4005-5005"
    with pytest.raises(
        RunError, match=r"a.bin lasts 4.999 ms and has no piece of 6 ms with an event: lower data.piece_ms"
    ):
        cut_listing(listing, 6.0, 0)
    with pytest.raises(ValueError, match=r"it lasts 5 ms, shorter than a piece of 6 ms"):
        first_piece(events, 6.0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1, 200), length=st.integers(1, 60_000), seed=st.integers(0, 99))
def test_pieces_hold_every_event_but_the_rest_once(tmp_path, n, length, seed):
    events = some_events(n, seed=seed)
    write_nmnist(tmp_path / f"{n}-{length}-{seed}.bin", events)
    whole = (int(events["t"][-1] - events["t"][0]) + 1) // length * length
    kept = events[events["t"] < events["t"][0] + whole]
    listing = FileList(tmp_path, [f"{n}-{length}-{seed}.bin"], [0], ["x"])
    if not len(kept):
        with pytest.raises(RunError, match="has no piece"):
            cut_listing(listing, length / 1000, 0)
        return
    parts = [read_excerpt(tmp_path, name) for name in cut_listing(listing, length / 1000, 0).files]
    assert np.array_equal(np.concatenate(parts), kept)
    assert np.array_equal(first_piece(events, length / 1000), parts[0])
