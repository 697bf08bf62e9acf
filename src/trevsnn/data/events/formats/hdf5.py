"""Events in HDF5, ``.h5`` and ``.hdf5``, in the layouts that are common. Nothing outside the file is read."""

from __future__ import annotations

import contextlib
import importlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.convention import Convention, TimeUnit
from trevsnn.data.events.formats.clock import Order
from trevsnn.data.events.formats.event import Events, RefusedError, Sensor
from trevsnn.data.events.formats.extra import need
from trevsnn.data.events.formats.hdf5_chunks import check_chunks, filters_of
from trevsnn.data.events.formats.hdf5_text import attribute
from trevsnn.data.events.formats.table import (
    MOST_FIELDS,
    NAMES,
    check_packing,
    check_shapes,
    convert,
    counter_of,
    find_columns,
    microseconds,
    spelt_unit,
    unit_of_name,
)  # fmt: skip

#: Events that are read at a time.
SLICE = 1 << 20
#: Groups and datasets of a file that are looked at, and how deep.
MOST_ITEMS, DEEPEST = 1000, 3
#: Bytes of a chunk, which is unpacked as a whole.
MOST_CHUNK = 256 << 20
ECF = 0x8ECF
#: The columns of v2e's dataset of events, whose file does not name them.
V2E = ("t", "x", "y", "p")


class Hdf5Recording:
    """The events of the one place in a file that has them, at the top or up to three groups deep.

    ==========================================  ==================================================================
    datasets x, y, t, p                         with the names of :data:`trevsnn.data.events.formats.table.NAMES`; a
                                                number ``t_offset`` beside them or at the top is added to the times
                                                (DSEC; rpg_e2vid)
    one of compound type with such fields       Prophesee's CD/events
    ``events`` of shape (N, 4)                  an attribute ``columns`` names them; else of whole numbers t, x, y, p
                                                in the order of time, as v2e writes it
    ==========================================  ==================================================================

    An attribute ``unit``, ``units`` or ``time_unit`` of the times, or of their group, states their unit.

    Attributes:
        sensor: width and height, if the attribute ``geometry`` states them; known once the iteration has begun.
    """

    def __init__(self, path: Path, convention: Convention) -> None:
        self.sensor: Sensor | None = None
        self._path, self._convention = path, convention
        self._h5py = need("h5py")

    def __iter__(self) -> Iterator[Events]:
        """The events, some at a time.

        Raises:
            ValueError: they are no recording.
        """
        with self._h5py.File(self._path) as file:
            geometry = re.fullmatch(r"(\d{1,5})x(\d{1,5})", attribute(self._path, file, "geometry") or "")
            self.sensor = (int(geometry[1]), int(geometry[2])) if geometry else None
            place, columns = self._find(file)
            datasets = {id(dataset): dataset for dataset, _ in columns.values()}.values()
            stored = sum(self._check(dataset) for dataset in datasets)
            length = check_shapes({name: dataset.shape[:1] for name, (dataset, _) in columns.items()})
            check_packing(length, min(stored, self._path.stat().st_size))
            for dataset in datasets:
                check_chunks(dataset)
            unit = self._unit(place, columns["t"])
            offset = self._offset(file, place, unit)
            times, field = columns["t"]
            counter = counter_of(
                times.dtype[field] if isinstance(field, str) else times.dtype, unit or self._convention.time_unit
            )
            order, is_v2e = (
                Order(),
                isinstance(columns["t"][1], int) and attribute(self._path, columns["t"][0], "columns") is None,
            )
            last = None
            for start in range(0, length, SLICE):
                held: dict[int, NDArray[Any]] = {}
                part = {}
                for name, (dataset, field) in columns.items():
                    if id(dataset) not in held:
                        held[id(dataset)] = dataset[start : start + SLICE]
                    values = held[id(dataset)]
                    part[name] = (
                        values if field is None else values[:, field] if isinstance(field, int) else values[field]
                    )
                events = order.check(convert(part, self._convention, unit, start, offset, counter))
                if is_v2e and np.any(np.diff(events["t"], prepend=events["t"][0] if last is None else last) < 0):
                    raise RefusedError(
                        "its dataset events does not name its columns, and read as t, x, y, p it is not in the order of time: "
                        "give it an attribute columns, such as 'x y t p'"
                    )
                last = events["t"][-1]
                yield events

    def _find(self, file: Any) -> tuple[Any, dict[str, tuple[Any, str | int | None]]]:
        """The group of the events, and for each of x, y, t and p its dataset and the field or column of it."""
        found: dict[str, tuple[Any, dict[str, tuple[Any, str | int | None]]]] = {}
        names: list[str] = []
        for path, group, items in self._groups(file):
            datasets = {name: item for name, item in items.items() if isinstance(item, self._h5py.Dataset)}
            names += [f"{path}{name}" for name in datasets]
            if columns := find_columns(datasets):
                found[path or "/"] = group, {column: (datasets[name], None) for column, name in columns.items()}
            for name, dataset in datasets.items():
                if dataset.dtype.names and (fields := find_columns(dataset.dtype.names)):
                    found[path + name] = group, {column: (dataset, field) for column, field in fields.items()}
                elif name == "events" and dataset.ndim == 2 and dataset.shape[1] == 4:
                    found[path + name] = group, {c: (dataset, i) for c, i in self._matrix(dataset).items()}
        if len(found) > 1:
            raise RefusedError(f"it has events in {', '.join(found)[:200]}: keep one of them")
        if not found:
            held = ", ".join(names[:8])[:200] or "no datasets"
            raise RefusedError(f"it has no datasets x, y, t and p, in no layout that is known; it holds {held}")
        return next(iter(found.values()))

    def _groups(self, file: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        """The groups that are looked at, by their path, with what is in them."""
        level, looked = [("", file)], 0
        for _ in range(DEEPEST + 1):
            below = []
            for path, group in level:
                looked += len(group) + 1
                if looked > MOST_ITEMS:
                    raise RefusedError(f"it has more than {MOST_ITEMS} groups and datasets; keep those of the events")
                items = dict(self._items(group))
                yield path, group, items
                below += [(f"{path}{n}/", i) for n, i in items.items() if isinstance(i, self._h5py.Group)]
            level = below

    def _items(self, group: Any) -> Iterator[tuple[str, Any]]:
        """What is in a group itself: links that lead elsewhere are not followed."""
        for name in group:
            if isinstance(group.get(name, getlink=True), self._h5py.HardLink):
                yield name, group[name]
            elif any(name.lower() in known for known in (*NAMES.values(), ("events", "cd", "t_offset"))):
                raise RefusedError(
                    f"its {name} is a link, to another place or file, and links are not followed: copy the data there"
                )

    def _matrix(self, dataset: Any) -> dict[str, int]:
        stated = attribute(self._path, dataset, "columns")
        titles = V2E if stated is None else tuple(re.findall(r"\w+", stated))
        names = find_columns(titles)
        if names is None or len(titles) != 4 or (stated is None and dataset.dtype.kind not in "iu"):
            raise RefusedError(
                f"its dataset events of shape {dataset.shape} and type {dataset.dtype} does not name its columns: give it an "
                "attribute columns, such as 'x y t p'"
            )
        return {column: titles.index(name) for column, name in names.items()}

    def _check(self, dataset: Any) -> int:
        """The bytes that a dataset takes in the file, if all of it is there."""
        name, dtype = dataset.name, dataset.dtype
        properties = dataset.id.get_create_plist()
        if dataset.is_virtual or properties.get_external_count():
            raise RefusedError(f"its dataset {name} lies in other files, and these are not read: copy the data into it")
        if dtype.hasobject or dtype.kind not in "iufbV" or not 0 < dtype.itemsize <= MOST_FIELDS:
            raise ValueError(f"its dataset {name} is of type {dtype}, not of numbers"[:300])
        for code in filters_of(dataset):
            self._need_filter(name, code)
        stored = dataset.id.get_storage_size()
        chunks = dataset.chunks
        if chunks and math.prod(chunks) * dtype.itemsize > MOST_CHUNK:
            raise ValueError(f"its dataset {name} has chunks of {math.prod(chunks) * dtype.itemsize} bytes")
        whole = stored or not dataset.size
        if chunks and whole:
            parts = math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, chunks, strict=True))
            whole = dataset.id.get_num_chunks() == parts
        if not whole:
            raise ValueError(f"its dataset {name} was not written to its end")
        return stored

    def _need_filter(self, name: str, code: int) -> None:
        """Refuse a dataset packed by something that is not installed."""
        if self._h5py.h5z.filter_avail(code):
            return
        if code == ECF:
            raise RefusedError(
                f"its dataset {name} is packed by Prophesee's ECF, which no Python package brings: install hdf5_ecf "
                "(github.com/prophesee-ai/hdf5_ecf) and set HDF5_PLUGIN_PATH, or unpack it with h5repack -f NONE where it is"
            )
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # brings the common ones
        if not self._h5py.h5z.filter_avail(code):
            raise RefusedError(f"its dataset {name} is packed by HDF5's filter {code}: pip install hdf5plugin")

    def _unit(self, place: Any, times: tuple[Any, str | int | None]) -> TimeUnit | None:
        dataset, field = times
        for item in (dataset, place):
            for name in ("time_unit", "units", "unit"):
                if stated := attribute(self._path, item, name):
                    return spelt_unit(stated)
        return unit_of_name(field if isinstance(field, str) else dataset.name.rpartition("/")[2])

    def _offset(self, file: Any, place: Any, unit: TimeUnit | None) -> int:
        for group in (place, file):
            offset = group.get("t_offset")  # no link: those were refused by _items
            if isinstance(offset, self._h5py.Dataset):
                self._check(offset)
                if offset.size != 1:
                    raise ValueError(f"its t_offset is of shape {offset.shape}, not one number")
                check_chunks(offset)
                return int(microseconds(np.asarray(offset[()]).reshape(1), unit or self._convention.time_unit, 0)[0])
        return 0
