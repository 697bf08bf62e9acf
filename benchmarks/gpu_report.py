"""The tables and pictures of docs/results/gpu.md, from what benchmarks/gpu.py measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gpu_cases import LARGEST, OUT_OF_MEMORY, Case
from gpu_rows import read_rows
from trevsnn.measure.memory import memory_picture

PIECES = ("memory", "profile", "tune", "train", "tests")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Row = dict[str, Any]


def collect(folders: Iterable[Path]) -> dict[str, list[Row]]:
    """The rows of each piece; of the same measurement on the same device the last one, figures before errors."""
    pieces: dict[str, list[Row]] = {}
    for piece in PIECES:
        rows: dict[tuple[str, str], Row] = {}
        for row in (row for folder in folders for row in read_rows(folder / f"{piece}.jsonl")):
            key = row["device"], row["key"]
            if "error" not in row or "error" in rows.get(key, row):
                rows[key] = row
        pieces[piece] = list(rows.values())
    return pieces


def write(folders: Sequence[Path], page: Path) -> None:
    """Put tables and pictures into the page, and the figures into its .json."""
    pieces = collect(folders)
    page.with_suffix(".json").write_text(json.dumps(pieces, indent=1) + "\n")
    before, rest = page.read_text().split(BEGIN)
    devices = list(dict.fromkeys(row["device"] for rows in pieces.values() for row in rows))
    text = "\n".join(
        section(
            device,
            {piece: [row for row in rows if row["device"] == device] for piece, rows in pieces.items()},
            page.parents[1],
        )
        for device in devices
    )
    page.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}")


def section(device: str, pieces: dict[str, list[Row]], docs: Path) -> str:
    """What one device's rows say, in Markdown; its pictures are written into docs/images."""
    steps = [row for row in pieces["memory"] if row["batch"] != LARGEST]
    parts = [f"### {device}", _versions(pieces)]
    for timesteps in sorted({row["timesteps"] for row in steps})[:1]:
        parts.append(f"Training steps at T = {timesteps}, by batch:\n\n" + by_batch(steps, timesteps))
    for batch in _batches(steps):
        if len({row["timesteps"] for row in steps if row["batch"] == batch}) > 1:
            parts.append(f"Against T, batch {batch}:\n\n{against_t(steps, batch)}")
            parts.extend(_pictures(device, steps, batch, docs))
    largest = [row for row in pieces["memory"] if row["batch"] == LARGEST and "largest" in row]
    parts.append(_table("The largest batch of which a step fits", _LARGEST, largest))
    parts.append(_table("One factor at a time", _TUNED, pieces["tune"]))
    parts.extend(_profiles(pieces["profile"]))
    parts.extend(_runs(pieces))
    failed = [row for rows in pieces.values() for row in rows if row.get("error", OUT_OF_MEMORY) != OUT_OF_MEMORY]
    keys: dict[str, list[str]] = {}
    for row in failed:
        name = "the CIFAR-10 training" if row["key"] == "train" else row["key"]
        keys.setdefault(row["error"].rstrip("."), []).append(name)
    lines = [f"- {reason}: {'; '.join(names)}." for reason, names in keys.items()]
    parts.append("\n".join(["Without a result:\n", *lines]) if lines else "")
    return "\n\n".join(part for part in parts if part) + "\n"


def _versions(pieces: dict[str, list[Row]]) -> str:
    rows = [row for rows in pieces.values() for row in rows]
    neurons = sorted({row["neurons"] for row in rows if "neurons" in row})
    sizes = sorted({row["size"] for row in rows if "size" in row})
    versions = [f"{name} {', '.join(sorted({str(row[name]) for row in rows}))}" for name in ("torch", "trevsnn")]
    pictures = [f"pictures of {size} x {size}" for size in sizes]
    return ", ".join([*versions, *pictures, *(f"SpikingJelly's neurons by {name}" for name in neurons)]) + "."


def _batches(rows: Iterable[Row]) -> list[int]:
    return sorted({row["batch"] for row in rows})


def _name(row: Row) -> str:
    return Case(**{field: row[field] for field in Case._fields}).name


def _cell(row: Row | None, figure: str, scale: float, digits: int) -> str:
    """A figure, or why there is none."""
    if row is None:
        return ""
    if "error" in row:
        return OUT_OF_MEMORY if row["error"] == OUT_OF_MEMORY else "none"
    return f"{row[figure] / scale:,.{digits}f}" if figure in row else ""


def _grid(rows: list[Row], column: str, titles: dict[Any, str]) -> str:
    """MB per picture and pictures a second of every network, over batches or T."""
    figures = (("MB", "bytes_per_picture", 1e6, 2), ("pictures/s", "pictures_per_second", 1, 0))
    head = ["", *(f"{title}, {unit}" for unit, *_ in figures for title in titles.values())]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for name in dict.fromkeys(map(_name, rows)):
        found = {row[column]: row for row in rows if _name(row) == name}
        if all(row.get("error", OUT_OF_MEMORY) != OUT_OF_MEMORY for row in found.values()):
            continue  # why is listed at the end
        cells = [_cell(found.get(value), *figure) for _, *figure in figures for value in titles]  # type: ignore[arg-type]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def by_batch(rows: list[Row], timesteps: int) -> str:
    """All networks at one T."""
    rows = [row for row in rows if row["timesteps"] == timesteps]
    return _grid(rows, "batch", {batch: f"batch {batch}" for batch in _batches(rows)})


def against_t(rows: list[Row], batch: int) -> str:
    """The networks that were measured at several T."""
    rows = [row for row in rows if row["batch"] == batch]
    names = [name for name in dict.fromkeys(map(_name, rows)) if sum(_name(row) == name for row in rows) > 1]
    rows = [row for row in rows if _name(row) in names]
    return _grid(rows, "timesteps", {t: f"T = {t}" for t in sorted({row["timesteps"] for row in rows})})


#: Columns of plain tables: title, figure, divisor, digits.
_SPEED = [("MB per picture", "bytes_per_picture", 1e6, 2), ("peak, GB", "peak_bytes", 1e9, 1),
          ("ms a step", "step_ms", 1, 1), ("optimizer, ms", "optimizer_ms", 1, 1),
          ("pictures/s", "pictures_per_second", 1, 0)]  # fmt: skip
_LARGEST = [("batch", "largest", 1, 0), *_SPEED]
_TUNED = [*_SPEED, ("slowest step, ms", "slowest_ms", 1, 1)]


def _table(title: str, columns: Sequence[tuple[str, str, float, int]], rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lines = [f"{title}:\n", f"| | {' | '.join(column[0] for column in columns)} |", f"|---|{'---:|' * len(columns)}"]
    for row in rows:
        name = _name(row) if row.get("largest") else row["key"]
        lines.append(f"| {name} | {' | '.join(_cell(row, *column[1:]) for column in columns)} |")
    return "\n".join(lines)


def _profiles(rows: list[Row]) -> Iterator[str]:
    """Where the time goes, beside the device's ceilings."""
    ceiling: Row = {}
    for row in rows:
        if row["key"] == "ceilings" and "error" not in row:
            ceiling = row
            yield (
                f"Ceilings, measured: a copy moves {row['copy_bytes_per_second'] / 1e12:.2f} TB/s, read and written; "
                f"a bf16 product does {row['matmul_flops_per_second'] / 1e12:.0f} TFLOP/s."
            )
    for row in rows:
        if "kinds" not in row:
            continue
        launches = f"; {row['launches']:,} launches" if row["launches"] else ""
        text = f"{row['key']}: a step takes {row['step_ms']:.1f} ms, its kernels {row['device_ms']:.1f} ms{launches}"
        # Operators do not tell what this library's own kernels do: neither their operations nor their kind.
        own = "kernels" in row["key"]
        if not own:
            rate = row["flops"] / row["step_ms"] * 1e3
            share = f", {rate / ceiling['matmul_flops_per_second']:.1%} of the product's" if ceiling else ""
            kinds = ", ".join(f"{name} {ms / row['device_ms']:.0%}" for name, ms in row["kinds"].items() if ms)
            text += f"; {rate / 1e12:.1f} TFLOP/s{share}. Of the kernels' time: {kinds}"
        table = row["kernels"] if own and row["kernels"] else row["operators"]
        lines = [
            f"{text}.\n",
            f"| {'kernel' if table is row['kernels'] else 'operator'} | ms | calls | GB/s |",
            "|---|---:|---:|---:|",
        ]
        for name, part in table.items():
            moved = f"{part['bytes'] / part['ms'] / 1e6:,.0f}" if part.get("bytes") else ""
            lines.append(f"| `{_short(name)}` | {part['ms']:.2f} | {part['calls']:,} | {moved} |")
        yield "\n".join(lines)


def _short(name: str) -> str:
    """A kernel's name without namespaces and what follows its first arguments."""
    name = name.replace("at::native::", "").replace("(anonymous namespace)::", "").removeprefix("void ")
    return name if len(name) <= 90 else f"{name[:87]}..."


def _runs(pieces: dict[str, list[Row]]) -> Iterator[str]:
    """The tests, and the training."""
    for row in pieces["tests"]:
        counts = ", ".join(f"{n} {word}" for word, n in row["counts"].items())
        yield f"Tests on this device: {counts or 'none'}, in {row['seconds']:.0f} s."
    for row in pieces["train"]:
        if row["epochs"]:
            test = row.get("test_accuracy")
            tested = f", {test:.2%} on the test part" if test is not None else ""
            rate = f" {row['pictures_per_second']:,.0f} pictures a second." if "pictures_per_second" in row else ""
            yield (
                f"`trevsnn train {' '.join(row['arguments'])}`: {row['last_accuracy']:.2%} of the held-out pictures after "
                f"{row['epochs']} epochs{tested}, in {sum(row['seconds_per_epoch']):.0f} s.{rate}"
            )


def _pictures(device: str, rows: list[Row], batch: int, docs: Path) -> Iterator[str]:
    """Memory and speed against T."""
    points = [{**row, "name": _name(row)} for row in rows if row["batch"] == batch and "error" not in row]
    lines = [p for p in points if len({q["timesteps"] for q in points if q["name"] == p["name"]}) > 1]
    if not lines:
        return
    title = f"Training, batch {batch}, bf16, {device}"
    figures: dict[str, Figure] = {
        "memory": memory_picture([{**p, "peak_total": p["bytes_per_picture"]} for p in lines], title, label="name"),
        # The same picture of another figure: it divides by a million, so that "MB" become pictures.
        "speed": memory_picture(
            [{**p, "peak_total": 1e6 * p["pictures_per_second"]} for p in lines], title, label="name"
        ),
    }
    figures["speed"].axes[0].set(ylabel="pictures a second, forward and backward")
    (docs / "images").mkdir(exist_ok=True)
    for kind, figure in figures.items():
        name = f"gpu-{kind}-{batch}-{'-'.join(device.lower().replace(',', '').split())}.png"
        figure.savefig(docs / "images" / name, dpi=110)
        yield f"![{kind.capitalize()} of training against T, batch {batch}](../images/{name})"
