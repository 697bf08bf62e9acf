"""Events as arrays of NumPy, ``.npz``. Nothing is unpickled, and headers are looked at before anything is unpacked."""

from __future__ import annotations

import io
import math
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.convention import Convention, TimeUnit
from trevsnn.data.events.formats.clock import Order
from trevsnn.data.events.formats.event import Events, RefusedError, Sensor
from trevsnn.data.events.formats.table import (
    MOST_FIELDS,
    check_packing,
    check_shapes,
    convert,
    counter_of,
    find_columns,
    spelt_unit,
    unit_of_name,
)  # fmt: skip

#: Events that are converted at a time.
SLICE = 1 << 20
#: Elements of an array that says something about the others.
MOST_NOTES = 16
#: Arrays unpack to up to so many times the bytes that they take, and to so many always. Whole numbers of 64 bits do to some ten times.
MOST_TIMES, ALWAYS = 64, 64 << 20
#: Bytes of the list of what is in the file, some 60 for each array; Python takes ten times as much for it.
MOST_DIRECTORY = 1 << 20


class NpzRecording:
    """Arrays x, y, t and p; or one array ``events``, structured, or (N, 4) with an array ``columns`` of the four names.

    An array ``unit`` or ``time_unit`` may state the unit of time.

    Attributes:
        sensor: None; such a file does not state it.
    """

    sensor: Sensor | None = None

    def __init__(self, path: Path, convention: Convention) -> None:
        self._path, self._convention = path, convention

    def __iter__(self) -> Iterator[Events]:
        """The events, some at a time.

        Raises:
            ValueError: they are no recording.
        """
        with _File(self._path) as file, zipfile.ZipFile(file) as archive:
            file.most = sys.maxsize
            arrays = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            if len(arrays) < len(archive.infolist()):
                raise RefusedError("it has two arrays of one name: leave one of them out")
            columns, unit = self._columns(archive, arrays)
        counter = counter_of(columns["t"].dtype, unit or self._convention.time_unit)
        order, length = Order(), check_shapes({name: column.shape for name, column in columns.items()})
        for start in range(0, length, SLICE):
            part = {name: column[start : start + SLICE] for name, column in columns.items()}
            yield order.check(convert(part, self._convention, unit, start, counter=counter))

    def _columns(
        self, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]
    ) -> tuple[dict[str, NDArray[Any]], TimeUnit | None]:
        notes = {
            name: self._note(archive, members[name]) for name in ("time_unit", "unit", "columns") if name in members
        }
        unit: TimeUnit | None = next(
            (spelt_unit(notes[name][0]) for name in ("time_unit", "unit") if notes.get(name)), None
        )
        if found := find_columns(members):
            arrays = {column: _Array.look(archive, members[name], "iufb") for column, name in found.items()}
            self._check(list(arrays.values()))
            return {column: array.read(archive) for column, array in arrays.items()}, unit or unit_of_name(found["t"])
        if "events" not in members:
            held = ", ".join(sorted(members)[:8]) or "nothing"
            raise RefusedError(f"it holds {held[:200]}, and arrays x, y, t and p or events are needed")
        array = _Array.look(archive, members["events"], "iufV")
        titles = list(array.dtype.names or notes.get("columns", []))
        names = find_columns(titles)
        if names is None or (not array.dtype.names and (array.shape[1:] != (4,) or len(titles) != 4)):
            raise RefusedError(
                f"its array events is of shape {array.shape} and columns {', '.join(titles)[:200] or 'without names'}: a "
                "structured one with x, y, t and p is read, and one of (N, 4) with an array columns of the four names"
            )
        self._check([array])
        events = array.read(archive)
        parts = {c: events[n] if array.dtype.names else events[:, titles.index(n)] for c, n in names.items()}
        return parts, unit or unit_of_name(names["t"])

    def _check(self, arrays: list[_Array]) -> None:
        stored = min(sum(array.member.compress_size for array in arrays), self._path.stat().st_size)
        check_packing(max(array.shape[0] if array.shape else 1 for array in arrays), stored)
        if (size := sum(array.size for array in arrays)) > max(MOST_TIMES * stored, ALWAYS):
            raise ValueError(f"its {stored} bytes unpack to {size}, which those of no recording do")

    def _note(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> list[str]:
        note = _Array.look(archive, member, "U")
        return [str(text) for text in note.read(archive).ravel()] if math.prod(note.shape) <= MOST_NOTES else []


class _File(io.FileIO):
    """A file of which no more is read at a time than ``most``: of its directory, before :mod:`zipfile` looks at any of it."""

    most = MOST_DIRECTORY

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise RefusedError(
                f"its directory takes {size} bytes, and up to {self.most} are read: keep the arrays of the events"
            )
        return super().read(size)


@dataclass
class _Array:
    """An array of the file as its header describes it."""

    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @classmethod
    def look(cls, archive: zipfile.ZipFile, member: zipfile.ZipInfo, kinds: str) -> _Array:
        """Read its header alone.

        Raises:
            ValueError: it is not of such kinds, or of more than two dimensions.
        """
        with archive.open(member) as file:
            array = cls(member, *_header(file))
        if array.dtype.hasobject or array.dtype.kind not in kinds or not 0 < array.dtype.itemsize <= MOST_FIELDS:
            raise ValueError(f"its array {member.filename} is of type {array.dtype}, which is not read"[:300])
        if len(array.shape) > 2 or math.prod(array.shape[1:]) > MOST_NOTES:
            raise ValueError(f"its array {member.filename} is of shape {array.shape}")
        return array

    @property
    def size(self) -> int:
        """Bytes that it has, unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, archive: zipfile.ZipFile) -> NDArray[Any]:
        with archive.open(self.member) as file:
            _header(file)
            content = file.read(self.size)
            if len(content) != self.size or file.read(1):
                raise ValueError(f"its array {self.member.filename} is not as long as its header says")
        return np.frombuffer(content, self.dtype).reshape(self.shape, order="F" if self.fortran else "C")


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"it has an array of version {version}; 1.0 and 2.0 are read")
