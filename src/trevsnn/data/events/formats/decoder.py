"""What decodes recordings as they arrive, in pieces of any size."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.events.formats.clock import Order
from trevsnn.data.events.formats.event import EVENT, Events, Sensor

#: Bytes that the lines at a file's beginning may take together. jAER writes all its settings there.
MOST_HEADER = 4 << 20
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f]")
NO_EVENTS = np.empty(0, EVENT)


class Decoder(Protocol):
    """Decodes one recording.

    Attributes:
        sensor: width and height, once the file has stated them.
    """

    @property
    def sensor(self) -> Sensor | None: ...

    def feed(self, content: bytes) -> Events:
        """The events that the next bytes complete, in the file's order, their times contiguous.

        Raises:
            ValueError: they are not of the format, or its clock was reset.
        """
        ...

    def finish(self) -> None:
        """Say that there are no more bytes.

        Raises:
            ValueError: the recording ends within an event.
        """
        ...


class PieceDecoder(ABC):
    """A decoder that keeps the bytes which do not make up anything yet, and hands them in again with the next."""

    def __init__(self) -> None:
        self.sensor: Sensor | None = None
        self._rest = b""
        self._order = Order()

    def feed(self, content: bytes) -> Events:
        content = self._rest + content if self._rest else content
        events, used = self._decode(content)
        self._rest = content[used:]
        return self._order.check(events)

    def finish(self) -> None:
        if self._rest:
            raise ValueError(f"it ends within an event, {len(self._rest)} bytes into it")

    @abstractmethod
    def _decode(self, content: bytes) -> tuple[Events, int]:
        """The events at the beginning of some bytes, and how many bytes they are."""


class WordDecoder(PieceDecoder):
    """A decoder of words of one width, behind lines of text or not.

    Attributes:
        WORD: dtype of a word.
        MARK: what the lines of text begin with; None where there are none.
    """

    WORD: Any
    MARK: bytes | None = None

    def __init__(self) -> None:
        super().__init__()
        self._width = np.dtype(self.WORD).itemsize
        self._in_header = self.MARK is not None

    def _decode(self, content: bytes) -> tuple[Events, int]:
        start = 0
        if self._in_header:
            if (end := end_of_header(content, self.MARK or b"")) is None:
                return NO_EVENTS, 0
            taken = self._read_header(content[:end].decode("latin-1").splitlines(), content[end:])
            if taken is None:
                return NO_EVENTS, 0
            self._in_header, start = False, end + taken
        words = np.frombuffer(content, self.WORD, (len(content) - start) // self._width, start)
        return self._events(words), start + words.nbytes

    def finish(self) -> None:
        if self._in_header and self._rest:
            raise ValueError("its header has no end")
        if self._rest:
            raise ValueError(f"it ends within an event, {len(self._rest)} of {self._width} bytes into it")

    def _read_header(self, lines: list[str], behind: bytes) -> int | None:
        """Look at the lines; bytes behind them that belong to the header, None where more are to come."""
        return 0

    @abstractmethod
    def _events(self, words_N: NDArray[Any]) -> Events:
        """The next words as events."""


def end_of_header(content: bytes, mark: bytes) -> int | None:
    """Where the lines of text end that begin with ``mark``. None if it is not there yet.

    A line with control characters is none: it is words that begin like one. Of AEDAT 2 and of Prophesee's formats newer files
    say where the text ends.

    Raises:
        ValueError: it does not come within :data:`MOST_HEADER` bytes.
    """
    start = 0
    while True:
        if start + len(mark) > len(content):
            return None if mark.startswith(content[start:]) else start
        if not content.startswith(mark, start):
            return start
        end = content.find(b"\n", start)
        line = content[start : len(content) if end < 0 else end].removesuffix(b"\r")
        if CONTROL.search(line):
            return start
        if end < 0:
            if len(content) > MOST_HEADER:
                raise ValueError(f"its header does not end within {MOST_HEADER >> 20} MiB")
            return None
        start = end + 1
        if line.lower().lstrip(b"#% \t!").replace(b"-", b" ").rstrip() in (
            b"end of ascii header",
            b"end",
            b"end header",
        ):
            return start
