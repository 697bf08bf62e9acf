"""The times of events: counters that wrap around, and clocks that were reset."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.events.formats.event import MOST_EVENTS, Events

#: Microseconds by which an event may be earlier than the one before it. Cameras mix up neighbours, not seconds.
MOST_BACKWARDS = 1_000_000


class Counter:
    """Times of a counter of so many bits, made contiguous over its wraps.

    A time that falls by more than half the range has wrapped. After a wrap, one that rises by nearly the whole range, but for a
    second at most, is an event from before it that came late.

    Args:
        bits: of the counter.
        second: ticks that make up a second.
    """

    def __init__(self, bits: int, second: int = 1_000_000) -> None:
        self._range, self._late = 1 << bits, (1 << bits) - second
        self._last, self._wraps = 0, 0

    def unwrap(self, times_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """The next times of a recording."""
        if not len(times_N):
            return times_N
        steps = np.diff(times_N, prepend=self._last)
        turns = (steps < -self._range // 2).astype(np.int64) - (steps > self._late)
        wraps = self._wraps + np.cumsum(turns)
        if wraps.min() < 0:  # there is nothing before the first round, so that was a rise
            wraps -= np.minimum.accumulate(np.minimum(wraps, 0))
        self._last, self._wraps = int(times_N[-1]), int(wraps[-1])
        return times_N + wraps * self._range


class Order:
    """Counts a recording's events, and refuses a clock that was reset."""

    def __init__(self) -> None:
        self.count = 0
        self._last: int | None = None

    def check(self, events: Events) -> Events:
        """The next events, as they are.

        Raises:
            ValueError: one is more than :data:`MOST_BACKWARDS` earlier than the one before it, or they have become too many.
        """
        if not len(events):
            return events
        t = events["t"]
        # compared, not subtracted: far apart, times have no difference in 64 bits
        before = np.concatenate([t[:1] if self._last is None else [self._last], t[:-1]])
        back = np.flatnonzero(
            (t < before) & (t < np.maximum(before, np.iinfo(np.int64).min + MOST_BACKWARDS) - MOST_BACKWARDS)
        )
        if len(back):
            raise ValueError(
                f"event {self.count + back[0] + 1} is at {t[back[0]]} us and the one before it at {before[back[0]]} us, so its clock "
                "was reset: cut the file there"
            )
        self._last = int(t[-1])
        self.count += len(events)
        if self.count > MOST_EVENTS:
            raise ValueError(f"it holds more than {MOST_EVENTS} events: cut it into shorter recordings")
        return events
