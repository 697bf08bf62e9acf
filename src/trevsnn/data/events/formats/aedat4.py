"""iniVation's ``.aedat4``: packets of FlatBuffers, each compressed by LZ4 or Zstandard, or not.

https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-4.0.html
"""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np

from trevsnn.data.events.formats.decoder import NO_EVENTS, PieceDecoder
from trevsnn.data.events.formats.event import Events, RefusedError, make_events
from trevsnn.data.events.formats.extra import need
from trevsnn.data.events.formats.table import check_packing

FIRST_LINE = b"#!AER-DAT4.0\r\n"
#: Bytes of a packet, compressed or not. Cameras write some ten thousand events into one, of 16 bytes.
MOST_PACKET = 64 << 20
WORD = np.dtype(
    {"names": ["t", "x", "y", "p"], "formats": ["<i8", "<i2", "<i2", "u1"], "offsets": [0, 8, 10, 12], "itemsize": 16}
)


class Aedat4Decoder(PieceDecoder):
    """Reads the header, then packet after packet, of which those of one stream of events are decoded.

    Raises:
        UsageError: lz4 or zstandard, of the extra ``events``, is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._libraries = need("lz4.frame"), need("zstandard")
        self._unpack: Any = None
        self._place, self._end = 0, -1
        self._stream: int | None = None
        self._events = 0

    def _decode(self, content: bytes) -> tuple[Events, int]:
        parts, start = [], 0
        while (part := self._next(content, start)) is not None:
            events, used = part
            parts.append(events)
            start += used
            self._place += used
        return np.concatenate(parts) if parts else NO_EVENTS, start

    def _next(self, content: bytes, start: int) -> tuple[Events, int] | None:
        """The events of the header or packet that begins here, and its length; None if it is not whole."""
        if self._unpack is None:
            return self._header(content)
        if self._done():  # what follows is a table of the packets
            return (NO_EVENTS, len(content) - start) if len(content) > start else None
        if len(content) - start < 8:
            return None
        stream, size = struct.unpack_from("<ii", content, start)
        if not 0 <= size <= MOST_PACKET or (0 <= self._end < self._place + 8 + size):
            raise ValueError(f"it has a packet of {size} bytes at byte {self._place}")
        if len(content) - start < 8 + size:
            return None
        packet = content[start + 8 : start + 8 + size]
        if self._unpack(packet, 12)[8:12] != b"EVTS":
            return NO_EVENTS, 8 + size
        if self._stream not in (None, stream):
            raise RefusedError(f"it has events of two streams, {self._stream} and {stream}: export one of them")
        self._stream = stream
        unpacked = self._unpack(packet, MOST_PACKET + 1)
        if len(unpacked) > MOST_PACKET:
            raise ValueError(f"it has a packet that unpacks to more than {MOST_PACKET >> 20} MiB")
        events = events_of(unpacked)
        self._events += len(events)
        check_packing(self._events, self._place + 8 + size)
        return events, 8 + size

    def _header(self, content: bytes) -> tuple[Events, int] | None:
        if not content.startswith(FIRST_LINE[: len(content)]):
            raise ValueError("it does not begin with #!AER-DAT4.0")
        line = len(FIRST_LINE)
        if len(content) < line + 4:
            return None
        size = struct.unpack_from("<I", content, line)[0]
        if size > MOST_PACKET:
            raise ValueError(f"it has a header of {size} bytes")
        if len(content) < line + 4 + size:
            return None
        header = Table(content[line : line + 4 + size])
        compression, self._end = header.number(0, "<i", 0), header.number(1, "<q", -1)
        if 0 <= self._end < line + 4 + size:
            raise ValueError(f"its header says that its packets end at byte {self._end}")
        self._unpack = unpacker(compression, *self._libraries)
        sides = [
            re.search(rb'key="size%s"[^>]*>(\d{1,5})<' % axis, content[line : line + 4 + size]) for axis in (b"X", b"Y")
        ]
        if sides[0] and sides[1]:
            self.sensor = (int(sides[0][1]), int(sides[1][1]))
        return NO_EVENTS, line + 4 + size

    def _done(self) -> bool:
        return 0 <= self._end <= self._place

    def finish(self) -> None:
        if self._rest or (self._unpack is not None and self._end >= 0 and not self._done()):
            raise ValueError("it ends within a packet, or before its last one")


class Table:
    """The root table of a FlatBuffer with its length before it. Whatever points out of it is a ValueError.

    https://flatbuffers.dev/internals
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 4 + self._read("<I", 4)
        self._fields = self._at - self._read("<i", self._at)
        self._size = self._read("<H", self._fields)

    def number(self, field: int, form: str, default: int) -> int:
        at = self._place(field)
        return default if at is None else self._read(form, at)

    def vector(self, field: int) -> tuple[int, int]:
        """Where a vector's elements begin, and how many there are."""
        at = self._place(field)
        if at is None:
            return 0, 0
        at += self._read("<I", at)
        return at + 4, self._read("<I", at)

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        offset = self._read("<H", self._fields + entry) if entry + 2 <= self._size else 0
        return self._at + offset if offset else None

    def _read(self, form: str, at: int) -> int:
        if not 0 <= at <= len(self._content) - struct.calcsize(form):
            raise ValueError("a packet of it points out of itself")
        return struct.unpack_from(form, self._content, at)[0]


def events_of(packet: bytes) -> Events:
    """A packet of events: one vector of t64 x16 y16 p8, of 16 bytes each."""
    start, count = Table(packet).vector(0)
    if start + count * WORD.itemsize > len(packet):
        raise ValueError("a packet of it points out of itself")
    words = np.frombuffer(packet, WORD, count, start)
    if count and words["p"].max() > 1:
        raise ValueError(f"it has an event of polarity {words['p'].max()}; there are 0 and 1")
    return make_events(words["x"], words["y"], words["t"], words["p"])


def unpacker(compression: int, lz4: Any, zstandard: Any) -> Any:
    """What gives the first bytes of a packet, at most so many.

    Raises:
        ValueError: there is no such compression.
    """
    if compression == 0:
        return lambda packet, most: packet[:most]
    if compression in (1, 2):

        def unpack(packet: bytes, most: int) -> bytes:
            decompressor = lz4.LZ4FrameDecompressor()
            unpacked = decompressor.decompress(packet, max_length=most)
            if len(unpacked) < most and not decompressor.eof:
                raise ValueError("a packet of it is cut off")
            return unpacked

        return unpack
    if compression in (3, 4):
        return lambda packet, most: (
            zstandard.ZstdDecompressor(max_window_size=MOST_PACKET).stream_reader(packet).read(most)
        )
    raise ValueError(f"it is of compression {compression}; there are 0 to 4")
