"""iniVation's ``.aedat``: version 2, words behind lines with #, and version 3, packets.

https://docs.inivation.com/software/software-advanced-usage/file-formats/index.html
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.events.formats.clock import Counter
from trevsnn.data.events.formats.decoder import NO_EVENTS, PieceDecoder, end_of_header
from trevsnn.data.events.formats.event import Events, RefusedError, Sensor, make_events

DVS128: Sensor = (128, 128)
#: By the number in a chip's name.
DAVIS: dict[str, Sensor] = {
    "128": (128, 128), "208": (208, 192), "240": (240, 180), "346": (346, 260), "640": (640, 480),
}  # fmt: skip
FIRST_LINE = len(b"#!AER-DAT2.0")


class AedatDecoder(PieceDecoder):
    """Reads the lines, and hands what follows to the decoder of their version."""

    def __init__(self) -> None:
        super().__init__()
        self._body: Aedat2 | Aedat3 | None = None

    def _decode(self, content: bytes) -> tuple[Events, int]:
        start = 0
        if self._body is None:
            if not b"#!AER-DAT".startswith(content[:9]) and not content.startswith(b"#!AER-DAT"):
                raise ValueError("it does not begin with #!AER-DAT")
            if len(content) < FIRST_LINE:
                return NO_EVENTS, 0
            version = content[9:12].decode("latin-1")
            if version not in ("2.0", "3.0", "3.1"):
                raise RefusedError(f"it is of version {version[:1]}; 2.0, 3.0 and 3.1 end in .aedat, 4 in .aedat4")
            if (end := end_of_header(content, b"#")) is None:
                return NO_EVENTS, 0
            text = content[:end].decode("latin-1")
            if version == "3.1" and "#!END-HEADER" not in text:
                raise ValueError("its header has no end")
            self._body, start = Aedat2(text) if version == "2.0" else Aedat3(text, version), end
            self.sensor = self._body.sensor
        events, used = self._body.decode(memoryview(content)[start:])
        return events, start + used

    def finish(self) -> None:
        if self._body is None and self._rest:
            raise ValueError("its header has no end")
        if self._body is not None:
            self._body.finish(len(self._rest))


class Aedat2:
    """Big-endian words of an address and a time of 32 bits, as jAER writes them.

    A DVS128's addresses are y7 x7 p1 in the low 15 bits, p = 0 brighter, x and y counted from the lower right; with bit 15 they
    are signals from outside. A DAVIS's are y9 x10 p1 from bit 30 to bit 11, p = 1 brighter, and are drawn by jAER mirrored, from the lower
    right too; bit 31 marks samples of pictures and of the inertial unit, bit 10 signals from outside.
    """

    WORD = np.dtype([("a", ">u4"), ("t", ">u4")])

    def __init__(self, text: str) -> None:
        self._counter, self._seen = Counter(32), 0
        chip = re.search(r"^# *AEChip:(.*)$", text, re.IGNORECASE | re.MULTILINE)
        interface = re.search(r"^# *HardwareInterface:(.*)$", text, re.IGNORECASE | re.MULTILINE)
        name = chip[1].strip() if chip else interface[1].strip() if interface else ""
        self.sensor, self._davis = DVS128, bool(re.search("davis?", name, re.IGNORECASE))
        size = re.search(r"davis?[a-z_ -]{0,5}(128|208|240|346|640)", name, re.IGNORECASE)
        if self._davis:
            if size is None:
                raise RefusedError(
                    f"its chip is {name}, and of a DAVIS the size must be known: 128, 208, 240, 346 or 640 in the line # AEChip"
                )
            self.sensor = DAVIS[size[1]]
        elif name and not re.search(r"(dvs|tmpdiff)_?128", name, re.IGNORECASE):
            raise RefusedError(f"its chip is {name}; of AEDAT 2 those of a DVS128 and of a DAVIS are read")
        self._stated = bool(name)

    def decode(self, content: memoryview) -> tuple[Events, int]:
        words = np.frombuffer(content, self.WORD, len(content) // 8)
        a, t = words["a"].astype(np.uint32), self._counter.unwrap(words["t"].astype(np.int64))
        events = self._of_davis(a, t) if self._davis else self._of_dvs128(a, t)
        self._seen += len(words)
        return events, words.nbytes

    def _of_dvs128(self, a: NDArray[np.uint32], t: NDArray[np.int64]) -> Events:
        if len(beyond := np.flatnonzero(a > 0xFFFF)):
            what = "a DVS128" if self._stated else "a DVS128, and its header names no chip"
            raise RefusedError(
                f"word {self._seen + beyond[0]} has the address {a[beyond[0]]:#x}, beyond those of {what}: if it is of a DAVIS, "
                "its header needs a line like # AEChip: DAVIS346"
            )
        pixels = (a & 0x8000) == 0
        a, t = a[pixels], t[pixels]
        return make_events(127 - (a >> 1 & 127).astype(np.int32), 127 - (a >> 8 & 127).astype(np.int32), t, 1 - (a & 1))

    def _of_davis(self, a: NDArray[np.uint32], t: NDArray[np.int64]) -> Events:
        pixels = np.flatnonzero(a & 0x80000400 == 0)
        a = a[pixels]
        (width, height), x, y = self.sensor, (a >> 12 & 1023).astype(np.int32), (a >> 22 & 511).astype(np.int32)
        return make_events(width - 1 - x, height - 1 - y, t[pixels], a >> 11 & 1)

    def finish(self, rest: int) -> None:
        if rest:
            raise ValueError(f"it ends within an event, {rest} of 8 bytes into it")


class Aedat3:
    """Packets with a header of 28 bytes; polarity events, type 1, are x15 y15 p1 valid1 t31, little endian.

    The header counts how often the time has overflowed its 31 bits. Packets are decoded as they arrive, whatever their length.
    In version 3.0 y counts from the bottom, in 3.1 from the top.
    """

    WORD = np.dtype([("a", "<u4"), ("t", "<i4")])
    HEADER = 28

    def __init__(self, text: str, version: str) -> None:
        form = re.search(r"^#Format: *(.*?)\s*$", text, re.MULTILINE)
        if form and form[1] != "RAW":
            raise RefusedError(f"its packets are written as {form[1]}, and RAW ones are read: write it again without")
        self.sensor: Sensor | None = None
        source = re.search(r"^#Source +\d+: *(\w+)", text, re.MULTILINE)
        if source and (size := re.match(r"davis[a-z]*(\d{3})", source[1], re.IGNORECASE)):
            self.sensor = DAVIS.get(size[1])
        elif source and re.match("dvs128", source[1], re.IGNORECASE):
            self.sensor = DVS128
        if version == "3.0" and self.sensor is None:
            raise RefusedError(
                "it is of AEDAT 3.0, in which y counts from the bottom of the sensor, and its header does not say which that is: it "
                "needs a line like #Source 1: DVS128"
            )
        self._lowest_y = self.sensor[1] - 1 if version == "3.0" and self.sensor else None
        self._left, self._is_polarity, self._overflows = 0, False, 0

    def decode(self, content: memoryview) -> tuple[Events, int]:
        parts, start = [], 0
        while True:
            if self._left:
                size = min(self._left, len(content) - start)
                if self._is_polarity:
                    size -= size % 8
                    parts.append(self._events(np.frombuffer(content, self.WORD, size // 8, start)))
                self._left -= size
                start += size
            if self._left or len(content) - start < self.HEADER:
                break
            self._open(np.frombuffer(content, "<i2", 1, start).item(), np.frombuffer(content, "<i4", 7, start).tolist())
            start += self.HEADER
        return np.concatenate(parts) if parts else NO_EVENTS, start

    def _open(self, kind: int, header: list[int]) -> None:
        _, size, offset, overflows, _, count, _ = header
        if kind < 0:
            raise RefusedError("it has compressed packets, and RAW ones are read: write it again without")
        if size < 1 or count < 0 or overflows < 0:
            raise ValueError(f"it has a packet of {count} events of {size} bytes after {overflows} overflows")
        self._is_polarity = kind == 1
        if self._is_polarity and (size, offset) != (8, 4):
            raise ValueError(
                f"it has polarity events of {size} bytes with the time at byte {offset}, not of 8 with it at 4"
            )
        self._left, self._overflows = size * count, overflows

    def _events(self, words_N: NDArray[Any]) -> Events:
        words = words_N[words_N["a"] & 1 == 1]  # the valid ones
        a, t = words["a"], words["t"].astype(np.int64)
        if len(t) and t.min() < 0:
            raise ValueError(f"it has an event at {t.min()} us, before its packet's beginning")
        y = (a >> 2 & 0x7FFF).astype(np.int32)
        if self._lowest_y is not None:
            y = self._lowest_y - y
        return make_events(a >> 17, y, t | self._overflows << 31, a >> 1 & 1)

    def finish(self, rest: int) -> None:
        if rest or self._left:
            raise ValueError("it ends within a packet")
