"""Events as lines of text, ``.csv``: a line that names the columns, then one line for each event."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.convention import Convention
from trevsnn.data.events.formats.decoder import NO_EVENTS, PieceDecoder
from trevsnn.data.events.formats.event import Events, RefusedError
from trevsnn.data.events.formats.table import convert, find_columns, unit_of_name

#: Bytes of a line.
MOST_LINE = 1000
TRUTHS = re.compile(rb"\b(?:true|(false))\b", re.IGNORECASE)


class CsvDecoder(PieceDecoder):
    """Lines of commas, semicolons, tabs or spaces. Those that begin with # are comments, and so are empty ones.

    The first line names the columns, in any order; a comment before the first event may do so too. Other columns are left out.
    Whole numbers are read as such, whatever their length, and others as 64-bit floating-point numbers. What is in a column may stand
    in quotation marks ("), in which separators are none.
    """

    def __init__(self, convention: Convention) -> None:
        super().__init__()
        self._convention, self._seen = convention, 0
        self._columns: dict[str, int] | None = None
        self._kinds = dict.fromkeys("xytp", "i8")
        self._separator: str | None = None
        self._unit: Any = None
        self._comment = ""

    def _decode(self, content: bytes) -> tuple[Events, int]:
        end = content.rfind(b"\n") + 1
        if len(content) - end > MOST_LINE:
            raise ValueError(f"it has a line of more than {MOST_LINE} bytes")
        start = 0
        while self._columns is None and start < end:
            stop = content.index(b"\n", start) + 1
            if self._read_names(content[start:stop]):
                start = stop
            elif self._columns is None:
                raise RefusedError(
                    "its first line does not name the columns: put x,y,t,p there, in the order that they have"
                )
        lines = content[start:end]
        if not lines:
            return NO_EVENTS, end
        ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n"))
        if np.diff(ends, prepend=-1).max() > MOST_LINE:
            raise ValueError(f"it has a line of more than {MOST_LINE} bytes")
        if b'"' in lines:
            self._check_quotes(lines)
        columns = self._numbers(lines)
        events = convert(columns, self._convention, self._unit, self._seen)
        self._seen += len(events)
        return events, end

    def finish(self) -> None:
        if self._rest:
            raise ValueError("its last line does not end: it may have been cut off; if not, end the line")

    def _read_names(self, line: bytes) -> bool:
        """Whether a line is none of events: a comment, an empty one, or that of the names."""
        if len(line) > MOST_LINE:
            raise ValueError(f"it has a line of more than {MOST_LINE} bytes")
        text = line.decode("utf-8-sig", "replace").strip()
        if not text:
            return True
        comment = text.startswith("#")
        names = text.lstrip("# ")
        separator = next((s for s in (",", ";", "\t") if s in names), None)
        fields = [field.strip().strip("'\"") for field in names.split(separator)]
        found = find_columns(fields)
        if comment:
            self._comment = text if found else self._comment
            return True
        if found is None and self._comment and re.match(r"[-+.\d]", text):
            comment, self._comment = self._comment, ""
            self._read_names(comment.lstrip("# ").encode())
            return False
        if found is None:
            if re.match(r"[-+.\d]", text):
                return False
            raise RefusedError(f"its columns are {', '.join(fields)[:200]}, and x, y, t and p are needed")
        self._columns = {name: fields.index(title) for name, title in found.items()}
        self._separator, self._unit = separator, unit_of_name(found["t"])
        return True

    def _numbers(self, lines: bytes) -> dict[str, NDArray[Any]]:
        """The columns of some lines, each of whole numbers if it has nothing else."""
        assert self._columns is not None
        lines = TRUTHS.sub(lambda match: b"0" if match[1] else b"1", lines) if TRUTHS.search(lines) else lines
        try:
            return self._parsed(lines, self._kinds)
        except ValueError:
            pass
        for name in self._columns:
            for self._kinds[name] in ("i8", "f8"):
                with contextlib.suppress(ValueError):
                    self._parsed(lines, {name: self._kinds[name]})
                    break
        try:
            return self._parsed(lines, self._kinds)
        except ValueError as error:
            raise ValueError(self._worst(lines)) from error

    def _check_quotes(self, lines: bytes) -> None:
        """Refuse a line within whose quotation marks it would end: the lines behind it would be taken for a part of its text."""
        for line in lines.decode("latin-1").split("\n"):
            if '"' in line and "#" not in line.partition('"')[0]:
                try:
                    self._fields(line)
                except csv.Error as error:
                    raise ValueError(f"its line {line[:100]!r} has a quotation mark too many ({error})") from error

    def _fields(self, line: str) -> list[str]:
        """What stands in the columns of a line.

        Raises:
            csv.Error: its quotation marks do not close.
        """
        if '"' not in line:
            return line.split(self._separator)
        return next(csv.reader([line], delimiter=self._separator or " ", skipinitialspace=True, strict=True))

    def _parsed(self, lines: bytes, kinds: dict[str, str]) -> dict[str, NDArray[Any]]:
        assert self._columns is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # there may be comments alone
            warnings.simplefilter(
                "error", DeprecationWarning
            )  # of NumPy, where it would cut a number down to a whole one
            try:
                table = np.loadtxt(
                    io.BytesIO(lines), np.dtype(list(kinds.items())), delimiter=self._separator, ndmin=1,
                    usecols=[self._columns[name] for name in kinds], encoding="latin-1", quotechar='"',
                )  # fmt: skip
            except DeprecationWarning as warning:
                raise ValueError(str(warning)) from warning
        return {name: table[name] for name in kinds}

    def _worst(self, lines: bytes) -> str:
        """What is wrong with the first line that is no event."""
        assert self._columns is not None
        number = self._seen + 1
        for line in lines.decode("utf-8", "replace").split("\n"):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            fields = self._fields(text)
            for name, column in self._columns.items():
                try:
                    float(fields[column])
                except (ValueError, IndexError):
                    return f"event {number} has no number {name} in its line {text[:100]!r}"
            number += 1
        return "its lines are no numbers"
