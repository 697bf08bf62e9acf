"""Windows that slide over events as they arrive."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from event_files import some_events
from trevsnn.data.events import windows
from trevsnn.data.events.recordings import EVENT
from trevsnn.data.events.windows import Windows
from trevsnn.errors import RunError


def at(times) -> np.ndarray:
    events = some_events(len(times))
    events["t"] = times
    return events


def given_by(sliding: Windows, blocks) -> list[tuple[int, int, list[int]]]:
    found = [w for block in blocks for w in sliding.feed(block)] + list(sliding.finish())
    return [(w.start, w.end, w.events["t"].tolist()) for w in found]


@settings(max_examples=100)
@given(
    times=st.lists(st.integers(-50, 400), min_size=1, max_size=60),
    width=st.integers(1, 80),
    hop=st.integers(1, 100),
    size=st.integers(1, 70),
)
def test_windows_hold_their_events_whatever_the_blocks(times, width, hop, size):
    """By the definition, one window after the other, and of windows without events the first of each gap alone."""
    events = at(sorted(times))
    first, last = int(events["t"][0]), int(events["t"][-1])
    slow, gap = [], False
    for start in range(first, last + 2 - width, hop):
        own = [t for t in sorted(times) if start <= t < start + width]
        if own or not gap:
            slow.append((start, start + width, own))
        gap = not own
    blocks = [events[i : i + size] for i in range(0, len(events), size)]
    sliding = Windows(width, hop)
    assert given_by(sliding, blocks) == slow
    assert sliding.late == 0


def test_a_window_is_given_by_the_first_event_behind_it():
    sliding = Windows(10, 5)
    assert list(sliding.feed(at([100, 103, 109]))) == []
    (window,) = sliding.feed(at([110]))
    assert (window.start, window.end, window.events["t"].tolist()) == (100, 110, [100, 103, 109])
    assert [w.events["t"].tolist() for w in sliding.feed(at([107, 115]))] == [
        [107, 109, 110]
    ]  # 107 came late, but not too late
    assert (sliding.late, list(sliding.feed(at([104]))), sliding.late) == (0, [], 1)


def test_what_is_kept_does_not_grow_and_is_bounded(monkeypatch):
    sliding = Windows(1000, 250)
    kept = []
    for second in range(50):
        list(sliding.feed(at(np.arange(1000) * 10 + second * 10_000)))
        kept.append(len(sliding._held))
    assert max(kept) <= 1000 / 10
    assert sliding._held.base is None
    monkeypatch.setattr(windows, "MOST", 99)
    with pytest.raises(RunError, match=r"more than 99 events lie within a window of 1 ms: shorten it, --window_ms"):
        list(Windows(1000, 250).feed(at([5] * 100)))


def test_nothing_is_given_of_nothing():
    sliding = Windows(10, 5)
    assert given_by(sliding, [np.empty(0, EVENT)]) == []
    assert sliding.left == 0
    assert given_by(Windows(10, 5), [at([3, 11])]) == []  # nine microseconds
    assert given_by(Windows(10, 5), [at([3, 12])]) == [(3, 13, [3, 12])]


@pytest.mark.parametrize(("hop", "left"), [(10, 2), (5, 0), (20, 2)])
def test_events_behind_the_last_window_are_counted(hop, left):
    sliding = Windows(10, hop)
    list(sliding.feed(at([100, 108, 111, 119])))
    list(sliding.feed(at([121, 124])))
    list(sliding.finish())
    assert sliding.left == left
