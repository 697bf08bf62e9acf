"""Plain tables of events: what their columns are called, and what the numbers in them may be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.convention import Convention, TimeUnit
from trevsnn.data.events.formats.clock import Counter
from trevsnn.data.events.formats.event import EVENT, MOST_EVENTS, Events, RefusedError, make_events

#: The names of columns that are known, in lower case. A time's name may end in its unit, as in ``t_us``.
NAMES = {
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "p": ("p", "ps", "pol", "pols", "polarity", "polarities", "on"),
}
#: Microseconds in a unit of time, as a fraction.
UNITS: dict[TimeUnit, tuple[int, int]] = {"s": (1_000_000, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}
SPELT: dict[str, TimeUnit] = {
    "s": "s", "sec": "s", "second": "s", "seconds": "s", "ms": "ms", "millisecond": "ms", "milliseconds": "ms", "us": "us",
    "\u00b5s": "us", "\u03bcs": "us", "usec": "us", "microsecond": "us", "microseconds": "us", "ns": "ns", "nanosecond": "ns",
    "nanoseconds": "ns",
}  # fmt: skip
#: A table of up to so many events for each byte that it takes in a file is read, and a small one always. Real ones take
#: a byte an event or more; one that is packed far more tightly was made to fill a machine's memory.
MOST_PER_BYTE, SMALL = 4, 1 << 20
#: Bytes of an element of a structured array.
MOST_FIELDS = 256


def find_columns(names: Iterable[str]) -> dict[str, str] | None:
    """Which of some names are those of x, y, t and p; None if one is missing.

    Raises:
        ValueError: two are the same one's.
    """
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(rf"_({'|'.join(get_args(TimeUnit))})$", "", name.strip().lower())
        for column, known in NAMES.items():
            if plain in known and (column == "t" or plain == name.strip().lower()):
                if column in found:
                    raise RefusedError(
                        f"its columns {found[column]} and {name} may both be {column}: leave one of them out"
                    )
                found[column] = name
    return {column: found[column] for column in NAMES} if len(found) == len(NAMES) else None


def unit_of_name(name: str) -> TimeUnit | None:
    """The unit that the name of a column of times ends in."""
    _, _, unit = name.strip().lower().rpartition("_")
    return SPELT.get(unit) if unit in get_args(TimeUnit) and "_" in name else None


def spelt_unit(text: Any) -> TimeUnit:
    """A unit of time as a file spells it.

    Raises:
        RefusedError: there is no such unit.
    """
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    if (unit := SPELT.get(text.strip().lower())) is None:
        raise RefusedError(f"its times are in {text[:40]!r}; known are {', '.join(UNITS)}")
    return unit


def check_shapes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The number of events of columns of such shapes.

    Raises:
        ValueError: they are not of one dimension, or of different length.
    """
    for name, shape in shapes.items():
        if len(shape) != 1:
            raise ValueError(f"its column {name} is of shape {shape}, not of one dimension")
    if len({shape[0] for shape in shapes.values()}) > 1:
        lengths = ", ".join(f"{name} has {shape[0]}" for name, shape in shapes.items())
        raise ValueError(f"its columns are of different length: {lengths}")
    return shapes["t"][0]


def check_packing(events: int, stored: int) -> None:
    """Refuse a table of too many events, or of more than so many bytes can hold.

    Raises:
        ValueError: it is one.
    """
    if events > MOST_EVENTS:
        raise ValueError(f"it holds {events} events, and up to {MOST_EVENTS} are read: cut it into shorter recordings")
    if events > SMALL and events > MOST_PER_BYTE * stored:
        raise ValueError(f"it holds {events} events in {stored} bytes, which no recording does")


def counter_of(times: np.dtype[Any], unit: TimeUnit | None) -> Counter | None:
    """What makes whole times of 32 bits contiguous over their wraps; None for others, which do not wrap."""
    if times.kind not in "iu" or times.itemsize != 4:
        return None
    micros, ticks = UNITS[unit or "us"]
    return Counter(32, 1_000_000 * ticks // micros)


def convert(
    columns: Mapping[str, NDArray[Any]], convention: Convention, unit: TimeUnit | None, first: int, offset: int = 0,
    counter: Counter | None = None,
) -> Events:  # fmt: skip
    """Columns x, y, t and p of a table as events.

    Args:
        columns: one-dimensional, of numbers.
        convention: what they mean.
        unit: of the times, where the file states it.
        first: the number of the first event, for messages.
        offset: microseconds that are added to the times.
        counter: of the times, where they wrap.

    Raises:
        RefusedError: the file must be told what the numbers mean.
        ValueError: the columns are of different length, or a number is not what it can be; the first such event is named.
    """
    check_shapes({name: column.shape for name, column in columns.items()})
    times = columns["t"] if counter is None else counter.unwrap(columns["t"].astype(np.int64))
    return make_events(
        _pixels("x", columns["x"], first),
        _pixels("y", columns["y"], first),
        _shifted(microseconds(times, unit or convention.time_unit, first), offset, first),
        _polarities(columns["p"], convention, first),
    )


def _whole(name: str, values_N: NDArray[Any], first: int) -> NDArray[Any]:
    """Numbers, if they are whole ones."""
    if values_N.dtype.kind in "iu":
        return values_N
    if values_N.dtype.kind != "f":
        raise ValueError(f"its column {name} is of type {values_N.dtype}, not of numbers")
    with np.errstate(invalid="ignore"):
        _refuse(
            ~(np.isfinite(values_N) & (values_N == np.trunc(values_N))),
            name,
            values_N,
            first,
            "which is no whole number",
        )
    return values_N.astype(np.float64)  # in fewer bits the limits below would be rounded


def _pixels(name: str, values_N: NDArray[Any], first: int) -> NDArray[Any]:
    values = _whole(name, values_N, first)
    most = np.iinfo(EVENT[name]).max
    _refuse((values < -most - 1) | (values > most), name, values, first, f"beyond {most}, the largest that is read")
    return values


def microseconds(values_N: NDArray[Any], unit: TimeUnit | None, first: int) -> NDArray[np.int64]:
    """Times of a unit, rounded to microseconds. Errors are those of :func:`convert`."""
    if values_N.dtype.kind == "f":
        _refuse(~np.isfinite(values_N), "t", values_N, first, "which is no time")
        if unit is None:
            raise RefusedError(
                "its times are floating-point numbers, and nothing says of which unit: state it by --time_unit, or --data.time_unit (s, ms, us or ns)"
            )
        times, divide = values_N.astype(np.float64), UNITS[unit]
        with np.errstate(over="ignore"):
            micros = np.rint(times * divide[0] / divide[1])
        _refuse(~(np.abs(micros) < 2.0**63), "t", values_N, first, "beyond what 64 bits of microseconds hold")
        return micros.astype(np.int64)
    if values_N.dtype.kind not in "iu":
        raise ValueError(f"its column t is of type {values_N.dtype}, not of numbers")
    times, (times_by, divided_by) = values_N, UNITS[unit or "us"]
    most = np.iinfo(np.int64).max // times_by
    _refuse((times > most) | (times < -most), "t", times, first, "beyond what 64 bits of microseconds hold")
    times = times.astype(np.int64)
    if divided_by > 1:
        quotient, rest = np.divmod(times, divided_by)
        return quotient + (2 * rest >= divided_by)
    return times * times_by


def _shifted(times_N: NDArray[np.int64], offset: int, first: int) -> NDArray[np.int64]:
    if not offset or not len(times_N):
        return times_N
    limits = np.iinfo(np.int64)
    if not limits.min <= int(times_N.min()) + offset <= int(times_N.max()) + offset <= limits.max:
        raise ValueError(f"its times, with its offset of {offset} us, are beyond what 64 bits of microseconds hold")
    return times_N + offset


def _polarities(values_N: NDArray[Any], convention: Convention, first: int) -> NDArray[Any]:
    values = values_N.astype(np.uint8) if values_N.dtype.kind == "b" else _whole("p", values_N, first)
    signed, binary = (values == 1) | (values == -1), (values == 1) | (values == 0)
    if convention.polarity == "signed":
        _refuse(~signed, "p", values, first, "and with data.polarity signed the polarities are -1 and 1")
        return values == 1
    if not binary.all() and (binary | signed).all():
        i = int(np.flatnonzero(~binary)[0])
        raise RefusedError(
            f"event {first + i + 1} has p = -1, and the polarities are 0 (darker) and 1 (brighter) where nothing else is said: if "
            "they are -1 and 1, state --polarity signed, or --data.polarity signed"
        )
    _refuse(~binary, "p", values, first, "and the polarities are 0 (darker) and 1 (brighter)")
    return values == 1


def _refuse(bad_N: NDArray[np.bool_], name: str, values_N: NDArray[Any], first: int, why: str) -> None:
    if bad_N.any():
        i = int(np.argmax(bad_N))
        raise ValueError(f"event {first + i + 1} has {name} = {values_N[i]}, {why}")
