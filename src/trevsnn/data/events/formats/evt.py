"""Prophesee's ``.raw``: EVT 2.0, words of 32 bits, and EVT 3.0, of 16, behind lines with %.

https://docs.prophesee.ai/stable/data/encoding_formats/index.html
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.events.formats.clock import Counter
from trevsnn.data.events.formats.decoder import NO_EVENTS, PieceDecoder, end_of_header
from trevsnn.data.events.formats.event import Events, RefusedError, make_events

Words = NDArray[Any]


class RawDecoder(PieceDecoder):
    """Reads the lines, and hands the words to the decoder of their version."""

    def __init__(self) -> None:
        super().__init__()
        self._words: Evt2 | Evt3 | None = None

    def _decode(self, content: bytes) -> tuple[Events, int]:
        start = 0
        if self._words is None:
            if (end := end_of_header(content, b"%")) is None:
                return NO_EVENTS, 0
            self._words, start = self._read_header(content[:end].decode("latin-1")), end
        words = np.frombuffer(content, self._words.WORD, (len(content) - start) // self._words.WORD.itemsize, start)
        return self._words.events(words), start + words.nbytes

    def finish(self) -> None:
        if self._words is None and self._rest:
            raise ValueError("its header has no end")
        if self._rest and self._words is not None:
            raise ValueError(f"it ends within a word, {len(self._rest)} of {self._words.WORD.itemsize} bytes into it")

    def _read_header(self, text: str) -> Evt2 | Evt3:
        found = re.search(r"^% *evt +(\d\.\d)|^% *format +EVT(\d+)", text, re.IGNORECASE | re.MULTILINE)
        if found is None:
            raise ValueError("its header does not say which version of EVT it is of")
        version = found[1] or ".".join(found[2].ljust(2, "0"))
        if version not in ("2.0", "3.0"):
            raise RefusedError(f"it is of EVT {version}; 2.0 and 3.0 are read: convert it with Prophesee's tools")
        if re.search(r"^% *endianness +big", text, re.IGNORECASE | re.MULTILINE):
            raise RefusedError(
                "its words are big-endian; little-endian ones are read: convert it with Prophesee's tools"
            )
        if size := re.search(r"^% *geometry +(\d{1,5})x(\d{1,5})", text, re.IGNORECASE | re.MULTILINE):
            self.sensor = (int(size[1]), int(size[2]))
        sides = [
            re.search(rf"^% *format .*[; ]{side}=(\d{{1,5}})", text, re.IGNORECASE | re.MULTILINE)
            for side in ("width", "height")
        ]
        if sides[0] and sides[1]:
            self.sensor = (int(sides[0][1]), int(sides[1][1]))
        return Evt2() if version == "2.0" else Evt3()


class Held:
    """A value that words set, and that holds until the next one sets it. None before the first."""

    def __init__(self) -> None:
        self.value: int | None = None

    def after(self, sets_N: NDArray[np.bool_], values_M: NDArray[np.int64], at_K: Words) -> NDArray[np.int64]:
        """The value after those of the next N words that are asked for, of which M set it. -1 before the first that does."""
        before = -1 if self.value is None else self.value
        held = np.concatenate([[before], values_M])
        self.value = int(held[-1]) if len(values_M) else self.value
        return held[np.cumsum(sets_N, dtype=np.int32)[at_K]]


class Evt2:
    """Type4 and, for pixels (0 darker, 1 brighter), t6 x11 y11; type 8 holds the upper 28 bits of the time."""

    WORD = np.dtype("<u4")
    KNOWN = np.isin(np.arange(16), (0, 1, 8, 10, 14, 15))

    def __init__(self) -> None:
        self._counter, self._high = Counter(28, 1_000_000 >> 6), Held()

    def events(self, words_N: Words) -> Events:
        """The next words' events. Those before the first time are left out."""
        kind = check_kinds(words_N >> 28, self.KNOWN, "2.0")
        sets = kind == 8
        pixels = np.flatnonzero(kind <= 1)
        high = self._high.after(sets, self._counter.unwrap((words_N[sets] & 0xFFFFFFF).astype(np.int64)), pixels)
        pixels, high = pixels[high >= 0], high[high >= 0]
        words = words_N[pixels]
        return make_events(words >> 11 & 0x7FF, words & 0x7FF, high << 6 | (words >> 22 & 63), kind[pixels])


class Evt3:
    """Type4 and twelve bits, which set a part of the state or stand for pixels at it.

    ===========  =====================================================================================
    0            y (the upper bit says which of two cameras)
    2            a pixel: polarity1 x11
    3            polarity1 x11 where the pixels of the next types 4 and 5 begin
    4, 5         12 or 8 pixels in a row, a bit each, the lowest first; the next ones begin behind them
    6            the lower 12 bits of the time
    8            its upper 12 bits
    7 10 14 15   nothing about pixels
    ===========  =====================================================================================
    """

    WORD = np.dtype("<u2")
    KNOWN = np.isin(np.arange(16), (0, 2, 3, 4, 5, 6, 7, 8, 10, 14, 15))
    PIXELS = np.isin(np.arange(16), (2, 4, 5))
    WIDTHS = np.array([12 if kind == 4 else 8 if kind == 5 else 0 for kind in range(16)], np.uint8)
    MOST_X = 2047

    def __init__(self) -> None:
        self._counter, self._high, self._low = Counter(12, 1_000_000 >> 12), Held(), Held()
        self._y, self._polarity, self._base = Held(), Held(), Held()
        self._behind = 0  # pixels of types 4 and 5 so far

    def events(self, words_N: Words) -> Events:
        """The next words' events. Those before the first time, or before the first y or beginning, are left out."""
        kind, value = check_kinds(words_N >> 12, self.KNOWN, "3.0"), words_N & 0xFFF
        at = np.flatnonzero(self.PIXELS[kind])
        t, base, polarity = self._times(kind, value, at), *self._bases(kind, value, at)
        y = self._y.after(kind == 0, (value[kind == 0] & 0x7FF).astype(np.int64), at)
        kind, value = kind[at], value[at]
        single = kind == 2
        base = np.where(single, value & 0x7FF, base)
        polarity = np.where(single, value >> 11, polarity)
        if not (valid := (t >= 0) & (y >= 0) & (polarity >= 0)).all():
            kind, value, t, y, base, polarity, single = (a[valid] for a in (kind, value, t, y, base, polarity, single))
        rows = np.where(kind == 5, value & 0xFF, value)[~single].astype("<u2")
        bits = np.unpackbits(rows.view(np.uint8).reshape(-1, 2), axis=1, bitorder="little")
        if len(rows):
            counts = np.ones(len(kind), np.int64)
            counts[~single] = bits.sum(1)
            base, y, t, polarity, single = (np.repeat(a, counts) for a in (base, y, t, polarity, single))
            base[~single] += np.nonzero(bits)[1]
        if len(base) and base.max() > self.MOST_X:
            raise ValueError(f"it has an event at x = {base.max()}, and EVT 3.0 goes up to {self.MOST_X}")
        return make_events(base, y, t, polarity)

    def _times(self, kind: Words, value: Words, at_K: Words) -> NDArray[np.int64]:
        """The time after some words, -1 before the first type 8."""
        upper, lower = kind == 8, kind == 6
        high = self._high.after(upper, self._counter.unwrap(value[upper].astype(np.int64)), at_K)
        low = self._low.after(lower, value[lower].astype(np.int64), at_K)
        return np.where(high < 0, -1, high << 12 | np.maximum(low, 0))

    def _bases(self, kind: Words, value: Words, at_K: Words) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the pixels of some words begin, and their polarity; of the polarity -1 where nothing said so."""
        starts = kind == 3
        widths = self.WIDTHS[kind]
        behind = self._behind + np.cumsum(widths, dtype=np.int64) - widths
        at = value[starts].astype(np.int64)
        polarity = self._polarity.after(starts, at >> 11, at_K)
        base = behind[at_K] + self._base.after(starts, (at & 0x7FF) - behind[starts], at_K)
        self._behind = int(behind[-1] + widths[-1]) if len(kind) else self._behind
        return base, polarity


def check_kinds(kind_N: Words, known_16: NDArray[np.bool_], version: str) -> Words:
    """The types of words, if there are such.

    Raises:
        ValueError: there are not.
    """
    kinds = kind_N.astype(np.uint8)
    if not known_16[kinds].all():
        raise ValueError(f"it has words of type {kinds[~known_16[kinds]][0]}, which EVT {version} does not have")
    return kinds
