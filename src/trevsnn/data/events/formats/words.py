"""Words of one width that hold an event each: N-MNIST's ``.bin``, SLAYER's ``.bs3``, Prophesee's ``.dat``."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.events.formats.clock import Counter
from trevsnn.data.events.formats.decoder import WordDecoder
from trevsnn.data.events.formats.event import Events, make_events


class NMnistDecoder(WordDecoder):
    """x8 y8 p1 t23, big endian; y = 240 stands for 2^13 us that the times of the words from there on leave out.

    N-MNIST and N-Caltech101: Orchard et al., Frontiers in Neuroscience 2015. Their times do not wrap.
    """

    WORD = np.dtype((np.uint8, 5))

    def __init__(self) -> None:
        super().__init__()
        self._overflows = 0

    def _events(self, words_N: NDArray[Any]) -> Events:
        x, y, high, middle, low = words_N.T
        t = (high & 127).astype(np.int64) << 16 | middle.astype(np.int64) << 8 | low
        overflow = y == 240
        if overflow.any() or self._overflows:
            overflows = self._overflows + np.cumsum(overflow)
            self._overflows = int(overflows[-1]) if len(overflows) else self._overflows
            t += overflows << 13
        events = make_events(x, y, t, high >> 7)
        return events[~overflow] if overflow.any() else events


class SlayerDecoder(WordDecoder):
    """x12 y12 channel8 t24, big endian, microseconds: the DVS128 Gesture clips of slayerPytorch."""

    WORD = np.dtype((np.uint8, 7))

    def __init__(self) -> None:
        super().__init__()
        self._counter, self._seen = Counter(24), 0

    def _events(self, words_N: NDArray[Any]) -> Events:
        b = words_N.T.astype(np.int32)
        if len(bad := np.flatnonzero(b[3] > 1)):
            raise ValueError(
                f"event {self._seen + bad[0] + 1} is of channel {b[3][bad[0]]}, where 0 and 1 are the polarities"
            )
        self._seen += len(words_N)
        t = self._counter.unwrap((b[4] << 16 | b[5] << 8 | b[6]).astype(np.int64))
        return make_events(b[0] << 4 | b[1] >> 4, (b[1] & 15) << 8 | b[2], t, b[3])


class DatDecoder(WordDecoder):
    """Lines with %, a byte for the kind of events and one for their width, then little-endian words t32 x14 y14 p4.

    Prophesee's DAT, version 2: https://docs.prophesee.ai/stable/data/file_formats/dat.html
    """

    WORD = np.dtype([("t", "<u4"), ("a", "<u4")])
    MARK = b"%"

    def __init__(self) -> None:
        super().__init__()
        self._counter, self._seen = Counter(32), 0

    def _read_header(self, lines: list[str], behind: bytes) -> int | None:
        text = "\n".join(lines)
        version = re.search(r"^% *version +(\S+)", text, re.IGNORECASE | re.MULTILINE)
        if version is None or version[1] != "2":
            raise ValueError(f"it is no DAT file of version 2, but {'of none' if version is None else version[1]}")
        if len(behind) < 2:
            return None
        if behind[0] not in (0, 12) or behind[1] != 8:
            raise ValueError(
                f"it holds events of kind {behind[0]} and {behind[1]} bytes; pixels are kind 0 or 12, of 8 bytes"
            )
        sides = [
            re.search(rf"^% *{side} +(\d{{1,5}})\s*$", text, re.IGNORECASE | re.MULTILINE)
            for side in ("width", "height")
        ]
        if sides[0] and sides[1]:
            self.sensor = (int(sides[0][1]), int(sides[1][1]))
        return 2

    def _events(self, words_N: NDArray[Any]) -> Events:
        a = words_N["a"]
        p = a >> 28
        if len(bad := np.flatnonzero(p > 1)):
            raise ValueError(f"event {self._seen + bad[0] + 1} is of polarity {p[bad[0]]}; there are 0 and 1")
        self._seen += len(a)
        return make_events(a & 0x3FFF, a >> 14 & 0x3FFF, self._counter.unwrap(words_N["t"].astype(np.int64)), p)
