"""Events as they arrive, in windows of time that slide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from trevsnn.data.events.recordings import EVENT, Events
from trevsnn.errors import RunError

MOST = 2**22  # events that are kept between blocks: 71 MB


class Window(NamedTuple):
    """A window's events in the order of time, and its first and last microsecond by the recording's clock, ``[start, end)``."""

    start: int
    end: int
    events: Events


class Windows:
    """Cuts events that arrive in blocks into windows ``[START + k H, START + k H + W)``, START being the first event's time.

    A window is given as soon as an event behind its end has come. Of windows without events only the first of a gap is given.
    What is kept are the events that belong to windows still to come, at most ``MOST`` of them, however long the recording is.

    Args:
        width: W, microseconds.
        hop: H, microseconds.

    Attributes:
        events: that came so far.
        late: events that came when all their windows were given; they are left out. Within a block events are sorted first.
        left: events behind the last window, once the recording has finished.
    """

    def __init__(self, width: int, hop: int) -> None:
        self.width, self.hop = width, hop
        self.late = self.left = self.events = 0
        self._start: int | None = None
        self._given = 0  # the end of the last window that was given
        self._in_gap = False
        self._held = np.empty(0, EVENT)

    def feed(self, events: Events) -> Iterator[Window]:
        """The windows that are complete once these events are there, too.

        Raises:
            RunError: too many events lie within a window.
        """
        if not len(events):
            return
        self.events += len(events)
        if self._start is None:
            self._start = self._given = int(events["t"].min())
        self.late += int((events["t"] < min(self._start, self._given)).sum())
        held = np.concatenate([self._held, events])
        held = held[np.argsort(held["t"], kind="stable")]
        yield from self._complete(held, int(held["t"][-1]))
        self._held = held[np.searchsorted(held["t"], self._start) :].copy()  # a view would keep the whole block
        if len(self._held) > MOST:
            raise RunError(
                f"more than {MOST} events lie within a window of {self.width / 1000:g} ms: shorten it, --window_ms."
            )

    def finish(self) -> Iterator[Window]:
        """The windows that end with the last event: its microsecond is over."""
        if len(self._held):
            yield from self._complete(self._held, int(self._held["t"][-1]) + 1)
            self.left = int((self._held["t"] >= self._given).sum())

    def _complete(self, held: Events, now: int) -> Iterator[Window]:
        assert self._start is not None
        while (end := self._start + self.width) <= now:
            first, last = np.searchsorted(held["t"], (self._start, end))
            if first < last or not self._in_gap:
                yield Window(self._start, end, held[first:last])
            self._in_gap, self._given = bool(first == last), end
            self._start += self.hop
            if first == last < len(held):  # go on where events are
                behind = int(held["t"][last]) - (self._start + self.width)
                self._start += max(0, behind // self.hop + 1) * self.hop
