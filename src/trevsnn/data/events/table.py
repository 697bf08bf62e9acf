"""A folder of recordings whose classes, and parts, stand in a table: labels.csv."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from trevsnn.data.listing import SPLITS
from trevsnn.data.part import FileList
from trevsnn.errors import RunError, listed
from trevsnn.files import read_file

TABLE = "labels.csv"
MOST_BYTES = 2**28  # of a table: some million rows
NAMED = 3  # rows or files that an error names


def has_table(root: Path) -> bool:
    """Whether a folder has a table of labels."""
    return os.path.lexists(root / TABLE) and not (root / TABLE).is_dir()


def read_table(root: Path, endings: Sequence[str]) -> dict[str | None, FileList]:
    """The recordings that a folder's labels.csv names, by their parts.

    Its first line names the columns: ``file``, a path from the folder on; ``label``, the name of its class; and, if
    wanted, ``part``, train, val or test, of every row. Others are not looked at. Classes are all labels, sorted as text.

    Args:
        root: the folder.
        endings: of recordings.

    Returns:
        Part by part, each in the order of classes and in the natural order of names; by None where the table has no parts.

    Raises:
        RunError: the table is damaged, names a file twice, or one that is missing, outside the folder, or no recording; a
            class has no recording to train on; or recordings of the folder do not stand in it.
    """
    rows = _rows(root)
    for row in rows:
        _check_row(root, row, endings)
    names = [row["file"] for row in rows]
    _check_once(root, names)
    _check_complete(root, names, endings)
    classes = sorted({row["label"] for row in rows})
    parts = SPLITS if "part" in rows[0] else (None,)
    found: dict[str | None, FileList] = {}
    for part in parts:
        own = [row for row in rows if row.get("part") == part]
        own.sort(key=lambda row: (classes.index(row["label"]), *natural(row["file"])))
        labels = [classes.index(row["label"]) for row in own]
        if own:
            found[part] = FileList(root, [row["file"] for row in own], labels, classes)
        if part in (None, "train") and (lacking := [c for n, c in enumerate(classes) if n not in set(labels)]):
            raise RunError(f"{root / TABLE} has no recording to train on of class {listed(lacking, NAMED)}: add one.")
    return found


def table_parts(root: Path) -> set[str]:
    """The parts that the table of a folder names; none where it has no such column.

    Raises:
        RunError: the table is damaged.
    """
    return {row["part"] for row in _rows(root) if "part" in row}


def natural(name: str) -> tuple[int, str]:
    """A key that sorts 2 before 10."""
    return len(name), name


def _rows(root: Path) -> list[dict[str, str]]:
    path = root / TABLE
    try:
        lines = io.StringIO(read_file(path, MOST_BYTES, links=True).decode("utf-8-sig"), newline="")
        table = csv.DictReader(lines, strict=True)
        table.fieldnames = columns = [name.strip() for name in table.fieldnames or []]
        if not all(columns.count(name) == 1 for name in ("file", "label")) or columns.count("part") > 1:
            raise ValueError(
                f"its first line names the columns {', '.join(columns) or 'none'}, not file and label, each once"
            )
        rows = [_row(row, table.line_num) for row in table]
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{path} cannot be read as a table of labels ({error}): mend it.") from error
    if not rows:
        raise RunError(f"{path} names no recordings: write one a line, under file,label.")
    return rows


def _row(row: dict[Any, Any], line: int) -> dict[str, str]:
    """What a row says of the known columns, and the ``line`` that it ends in. A file's name is as plain as it can be."""
    if any(row.get(None, ())):
        raise ValueError(
            f"line {line} has more fields than there are columns: put a label with a comma into quotation marks"
        )
    known = {name: (row[name] or "").strip() for name in ("file", "label", "part") if name in row}
    return {**known, "file": known["file"] and str(PurePosixPath(known["file"])), "line": str(line)}


def _check_row(root: Path, row: dict[str, str], endings: Sequence[str]) -> None:
    """Raise RunError where a row cannot be meant."""
    where = f"line {row['line']} of {root / TABLE}"
    lacking = [name for name, value in row.items() if not value]
    if lacking:
        raise RunError(f"{where} has no {lacking[0]}: fill it in.")
    file = PurePosixPath(row["file"])
    if file.is_absolute() or ".." in file.parts:
        raise RunError(f"{where} names {file}, which is outside the folder: name files from the folder on.")
    if not (root / file).is_file():
        raise RunError(f"{where} names {file}, which is not there: fetch it, or remove the line.")
    if file.suffix.lower() not in endings:
        raise RunError(f"{where} names {file}, which is no recording: they end in {', '.join(endings)}.")
    if row.get("part") not in (*SPLITS, None):
        raise RunError(f"{where} has the part {row['part']!r}: it is one of {', '.join(SPLITS)}.")


def _check_once(root: Path, names: Sequence[str]) -> None:
    """Raise RunError where two rows are of one file, be it by another name: it would be in two parts, or classes."""
    seen: dict[str, str] = {}
    for name in names:
        place = os.path.realpath(root / name)
        if place in seen:
            both = f"{name} twice" if seen[place] == name else f"{seen[place]} and {name}, which are one file"
            raise RunError(f"{root / TABLE} names {both}: leave one of the two rows.")
        seen[place] = name


def _check_complete(root: Path, names: Sequence[str], endings: Sequence[str]) -> None:
    """Raise RunError where recordings beside the table do not stand in it."""
    beside = {
        p.name for p in root.iterdir() if p.suffix.lower() in endings and not p.name.startswith(".") and p.name != TABLE
    }
    if others := sorted(beside - {str(PurePosixPath(name)) for name in names}):
        raise RunError(f"{root / TABLE} does not name {listed(others, NAMED)}: add their lines, or move them away.")
