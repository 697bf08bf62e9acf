"""``trevsnn stream --window_ms``: recordings of any length, and events as they arrive, in windows that slide."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from trevsnn.data.events.frames import Binning
from trevsnn.data.events.recordings import blocks
from trevsnn.data.events.windows import Window, Windows
from trevsnn.data.overrides import AS_TRAINED, DataOverrides
from trevsnn.data.sets import is_event, transform_of
from trevsnn.deploy.play import likeliest
from trevsnn.errors import RunError, UsageError
from trevsnn.run.load import LoadedRun

TIMED = 10_000  # windows, whose times are kept: more would grow with the recording


class Live:
    """A network that classifies windows of events.

    Each window is what :func:`trevsnn.data.files.read_inputs` makes of a recording that holds its events alone, so that its
    probabilities are those that ``trevsnn predict`` gives for such a file, bit for bit. A window has T frames, which the network
    sees one after the other, with a state of fixed size (:class:`trevsnn.network.stream.Stream`).

    Args:
        run: trained on recordings.
        window_ms: length of a window; None for the run's ``data.piece_ms``.
        hop_ms: from the beginning of a window to that of the next; None for a frame, ``window_ms / T``.
        data: what the numbers of plain tables mean where that is not what the run's config says.

    Attributes:
        window_ms: as given, or the run's, rounded to microseconds.
        hop_ms: likewise.
        windows: that were classified so far.
        seconds: that each of the last 10,000 windows took, from its last event to its probabilities.
        dropped: events outside the sensor.
        late: events that came too late for their windows.
        left: events behind the last window, which fill none.

    Raises:
        UsageError: the run was trained on pictures, no length is known, or one is below a microsecond.
        RunError: frames are to be larger than the sensor.
    """

    def __init__(
        self,
        run: LoadedRun,
        window_ms: float | None = None,
        hop_ms: float | None = None,
        data: DataOverrides = AS_TRAINED,
    ) -> None:
        self.model, config, self.about, _ = run
        self.data, timesteps = data.over(config.data), config.model.timesteps
        if not is_event(self.data):
            raise UsageError("the run was trained on pictures, which do not stream: use trevsnn predict.")
        window_ms = self.data.piece_ms if window_ms is None else window_ms
        if window_ms is None:
            raise UsageError("the run was trained on whole recordings: say with --window_ms how long a window is.")
        hop_ms = window_ms / timesteps if hop_ms is None else hop_ms
        lengths = {"--window_ms": window_ms, "--hop_ms": hop_ms}
        for name, value in lengths.items():
            if not 0.001 <= value < 1e9:
                raise UsageError(f"{name} is {value:g}; it must be at least 0.001, a microsecond, and below 1e9.")
        self.window_ms, self.hop_ms = (round(value * 1000) / 1000 for value in lengths.values())
        self.binning = Binning.of(self.data, timesteps)
        self.transform = transform_of(self.data, self.about, timesteps, training=False)
        self.seconds: deque[float] = deque(maxlen=TIMED)
        self.windows = self.dropped = self.late = self.left = 0

    def play(self, source: Path | BinaryIO, ending: str | None = None) -> Iterator[dict[str, Any]]:
        """Classify the windows of a recording, each as soon as it is over.

        Args:
            source: a file, or a stream such as ``sys.stdin.buffer``.
            ending: of the format, such as ".raw"; None for the file's own.

        Yields:
            For each window its number ``window``, from 1; ``from`` and ``until``, microseconds from the recording's first event;
            its ``events``; the likeliest ``class``, its ``probability``, the ``probabilities`` of all, and the ``seconds`` that it
            took. Of a gap the first window alone, whose class and probabilities are None.

        Raises:
            UnreadableError: when it comes to it: the file is missing, cut off, empty, too large, or not of its format; or it must be
                told what its numbers mean (``data``).
            RunError: the ending names no format; an event lies outside the sensor, or too many are in a window; or the recording is
                shorter than a window, or without events.
            UsageError: recordings of that ending are not read from a stream; or the library that reads them, of the extra
                ``events``, is not installed.
        """
        windows, first = Windows(round(self.window_ms * 1000), round(self.hop_ms * 1000)), None
        for window in self._windows(windows, blocks(source, ending, self.data.convention)):
            self.windows += 1
            first = window.start if first is None else first
            place = {"window": self.windows, "from": window.start - first, "until": window.end - first}
            yield place | self._classify(window)
        self.late, self.left = windows.late, windows.left
        if not windows.events:
            raise RunError("the recording holds no events: fetch it again.")
        if not self.windows:
            raise RunError(f"the recording is shorter than a window of {self.window_ms:g} ms: lower --window_ms.")

    def _windows(self, windows: Windows, arriving: Iterator[Any]) -> Iterator[Window]:
        for events in arriving:
            yield from windows.feed(events)
        yield from windows.finish()

    def _classify(self, window: Window) -> dict[str, Any]:
        start = time.perf_counter()
        classified: dict[str, Any] = dict.fromkeys(("class", "probability", "probabilities"))
        if len(window.events):
            try:
                counts_TCHW, dropped, _ = self.binning(window.events)
            except ValueError as error:
                raise RunError(
                    f"the window from {window.start} to {window.end} us does not fit the run: {error}."
                ) from error
            self.dropped += dropped
            classified = likeliest(self._logits(self.transform(counts_TCHW)), self.about.classes)
        self.seconds.append(time.perf_counter() - start)
        return {"events": len(window.events), **classified, "seconds": self.seconds[-1]}

    def _logits(self, frames_TCHW: Tensor) -> Tensor:
        stream = self.model.stream(1)
        return [stream.step(frame_CHW[None])[0] for frame_CHW in frames_TCHW][-1]

    def told(self) -> str:
        """A sentence on what was played: windows, latency, what was left out."""
        milliseconds = np.array(self.seconds) * 1000
        median, high = np.percentile(milliseconds, (50, 95))
        of_the_last = f" of the last {TIMED}" if self.windows > TIMED else ""
        left_out = [f"{self.dropped} events outside the sensor"] * (self.dropped > 0)
        left_out += [f"{self.late} that came too late for their windows"] * (self.late > 0)
        return (
            f"{self.windows} windows of {self.window_ms:g} ms, one every {self.hop_ms:g} ms; to compute one took {median:.1f} ms "
            f"(median{of_the_last}), {high:.1f} ms (95th percentile), {milliseconds.max():.1f} ms at most, so the network "
            f"{'keeps' if median <= self.hop_ms else 'does not keep'} up with the camera"
            f"{'; left out were ' + ' and '.join(left_out) if left_out else ''}"
            f"{f'; {self.left} events at the end fill no window' if self.left else ''}"
        )
