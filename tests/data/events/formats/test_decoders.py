"""Decoders: in pieces of any size they give what they give at once, and keep little."""

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from event_files import WRITERS, some_events
from trevsnn.data.events.recordings import DECODERS, EVENT, WHOLE, blocks, decoder_for, open_recording
from trevsnn.errors import RunError, UnreadableError, UsageError

ARRIVING = {name: write for name, write in WRITERS.items() if Path(name).suffix in DECODERS}


def fed(ending: str, pieces: list[bytes]) -> np.ndarray:
    decoder = decoder_for(ending)
    events = [decoder.feed(piece) for piece in pieces]
    decoder.finish()
    return np.concatenate(events)


@pytest.mark.parametrize("name", ARRIVING)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_pieces_give_the_same_events(tmp_path, name, data):
    events = some_events(data.draw(st.integers(1, 60)), seed=data.draw(st.integers(0, 9)))
    ARRIVING[name](tmp_path / name, events)
    content, ending = (tmp_path / name).read_bytes(), Path(name).suffix
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=30)))
    pieces = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    assert np.array_equal(fed(ending, pieces), events)


@pytest.mark.parametrize("name", ARRIVING)
def test_single_bytes_give_the_same_events_and_what_is_kept_does_not_grow(tmp_path, name):
    events = some_events(250)
    events["t"] += np.arange(250) * (
        40_000 if name[-3:] in ("bs3", "raw", "dat") else 0
    )  # of two formats the counter wraps
    ARRIVING[name](tmp_path / name, events)
    content = (tmp_path / name).read_bytes()
    decoder, parts, kept = decoder_for(Path(name).suffix), [], []
    for i in range(len(content)):
        parts.append(decoder.feed(content[i : i + 1]))
        kept.append(len(decoder._rest))
    decoder.finish()
    assert np.array_equal(np.concatenate(parts), events)
    assert max(kept) < (2000 if name.endswith("4") else 120)  # a packet of AEDAT 4, a header's line


def test_a_pipe_gives_events_as_they_arrive():
    events = some_events(500)
    reading, writing = os.pipe()
    number = (
        events["x"].astype(np.int64) << 32
        | events["y"].astype(np.int64) << 24
        | events["p"].astype(np.int64) << 23
        | events["t"]
    )
    content = number.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 3:].tobytes()
    with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb", buffering=0) as source:
        source.write(content[:501])
        arriving = blocks(file, ".bin")
        assert np.array_equal(next(arriving), events[:100])  # though the other end has not closed it
        thread = threading.Thread(target=lambda: (source.write(content[501:]), source.close()))
        thread.start()
        assert np.array_equal(np.concatenate(list(arriving)), events[100:])
        thread.join()


def test_what_arrives_is_named_where_it_is_damaged():
    with pytest.raises(
        UnreadableError, match=r"what arrives cannot be read as a recording .it ends within an event, 2 of 5"
    ):
        list(blocks(io.BytesIO(b"1234567"), ".bin"))


def test_formats_that_need_the_whole_file_are_errors_of_usage():
    for ending in WHOLE:
        with pytest.raises(
            UsageError, match=rf"recordings that end in {ending} are read from a file alone; as they arrive, those"
        ):
            decoder_for(ending)
    with pytest.raises(
        UsageError, match=r"recordings that end in .mp4 are not known; as they arrive, those in .aedat, "
    ):
        list(blocks(io.BytesIO(b""), ".mp4"))


@pytest.mark.parametrize("name", WRITERS)
def test_blocks_of_a_file_make_up_the_recording(tmp_path, name):
    WRITERS[name](tmp_path / name, some_events(400))
    parts = list(blocks(tmp_path / name))
    assert all(part.dtype == EVENT for part in parts)
    assert np.array_equal(np.concatenate(parts), open_recording(tmp_path / name).events)


def test_a_file_may_be_of_another_format_than_its_ending_says(tmp_path):
    events = some_events(40)
    WRITERS["nmnist.bin"](tmp_path / "a.events", events)
    assert np.array_equal(np.concatenate(list(blocks(tmp_path / "a.events", ".bin"))), events)
    with pytest.raises(RunError, match=r"no recordings end in .events; known are .aedat"):
        list(blocks(tmp_path / "a.events"))
