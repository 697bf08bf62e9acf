"""What ``trevsnn data show`` says of a recording or a folder of them, and the pictures that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Any

from rich.progress import track
from rich.table import Table

from trevsnn.data.convention import Convention
from trevsnn.data.events.animation import FASTEST_MS, MOST_FRAMES, animation, animation_spans
from trevsnn.data.events.look import HOT_LEAST, HOT_TIMES, Sensor, look_at_file, rate_windows
from trevsnn.data.events.look_at_set import find_recordings, look_at_item, look_at_recordings, summarise
from trevsnn.data.events.picture import set_sheet, sheet, sheet_spans
from trevsnn.data.events.recordings import Events
from trevsnn.data.events.units import counted, rate_text, time_text
from trevsnn.data.kinds import kind_of
from trevsnn.errors import RunError, UnreadableError, UsageError, listed
from trevsnn.files import write_file
from trevsnn.terminal import Terminal, visible

DRAWN = 16  # classes of a set
NAMED = 5  # unreadable recordings
COLUMNS, LINES = 60, 4  # of the rate over time
EIGHTHS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Drawing:
    """How recordings are drawn.

    Attributes:
        files: the PNG and the GIF; None for none.
        frames: of the PNG, for each recording.
        window_ms: that a frame of the GIF shows; one of the PNG up to three times that.
        slow: by how much slower the GIF is.

    Raises:
        UsageError: a GIF cannot be so fast, or so slow.
    """

    files: tuple[Path, Path] | None
    frames: int
    window_ms: float
    slow: float

    def __post_init__(self) -> None:
        shown = self.window_ms * self.slow
        if not isfinite(shown) or self.window_ms < 0.001 or not FASTEST_MS <= shown <= 60_000:
            raise UsageError(
                f"a frame of {self.window_ms:g} ms, {self.slow:g} times slower, would be shown for {shown:g} ms, and a GIF "
                f"shows one for {FASTEST_MS} ms to a minute: change --window_ms or --slow."
            )

    @property
    def window_us(self) -> int:
        return round(1000 * self.window_ms)


def show_recording(
    path: Path, sensor: Sensor | None, convention: Convention, drawing: Drawing
) -> tuple[dict[str, Any], list[str]]:
    """The figures of a recording and ``pictures``, what was drawn or None; and the same as lines for a terminal.

    Raises:
        UnreadableError, RunError, UsageError: as :func:`trevsnn.data.events.look.look_at_file`; or a picture cannot be written.
    """
    events, figures = look_at_file(path, sensor, convention)
    lines = [visible(path.name), *_described(figures), *_rate_chart(events), ""]
    pictures = None
    if drawing.files is not None:
        spans = sheet_spans(figures["duration_us"], drawing.frames, 3 * drawing.window_us)
        recording = ("", events, tuple(figures["sensor"]))
        png = sheet(events, figures, path.name, spans)
        pictures = _write(drawing, png, [recording], figures["duration_us"])
    return {**figures, "pictures": pictures}, [*lines, *_drawn(pictures)]


def show_folder(
    root: Path, sensor: Sensor | None, convention: Convention, workers: int, drawing: Drawing
) -> tuple[dict[str, Any], list[str]]:
    """The figures of a folder of recordings by part and class, what was drawn or None, and the same as lines for a terminal.

    Raises:
        RunError: it holds no recordings, or none can be read, or a picture cannot be written.
        UsageError: the library that reads them is not installed.
    """
    if (kind := kind_of(root)) != "recordings":
        held = "pictures: trevsnn data check looks at these" if kind == "folder" else "shards of pictures"
        raise RunError(f"{root} holds {held}, and this shows recordings of event cameras.")
    groups = find_recordings(root)
    looks = track(
        look_at_recordings(root, groups, sensor, workers, convention), "reading", sum(map(len, groups.values())),
        console=Terminal(stderr=True), transient=True,
    )  # fmt: skip
    rows, unreadable = summarise(groups, looks)
    if len(unreadable) == sum(map(len, groups.values())):
        raise UnreadableError(next(iter(unreadable.values())))
    pictures = None
    if drawing.files is not None:
        chosen = _one_of_each_class(root, groups, unreadable, sensor, convention)
        png = set_sheet(
            [
                (name, events, seen, sheet_spans(duration, drawing.frames, 3 * drawing.window_us))
                for name, events, seen, duration in chosen
            ],
            root.resolve().name,
            _of_classes(len(chosen), len({name for _, name in groups})),
        )
        recordings = [(name, events, seen) for name, events, seen, _ in chosen]
        pictures = _write(drawing, png, recordings, max(duration for _, _, _, duration in chosen))
    lines = [*_table(root, rows), *_oddities(rows, unreadable), *_drawn(pictures)]
    return {"root": str(root), "rows": rows, "unreadable": unreadable, "pictures": pictures}, lines


def _one_of_each_class(
    root: Path,
    groups: dict[tuple[str, str], list[str]],
    unreadable: dict[str, str],
    sensor: Sensor | None,
    convention: Convention,
) -> list[tuple[str, Events, Sensor, int]]:
    """Of the first classes, each: its name, the events of its first recording that can be read, the sensor and the duration."""
    first: dict[str, str] = {}
    for (_, class_), names in groups.items():
        for name in names:
            if name not in unreadable:
                first.setdefault(class_, name)
                break
    chosen = []
    for class_, name in list(first.items())[:DRAWN]:
        events, figures = look_at_item(root, name, sensor, convention)
        chosen.append((class_ or Path(name).name, events, tuple(figures["sensor"]), figures["duration_us"]))
    return chosen


def _of_classes(drawn: int, count: int) -> str:
    which = "each class" if drawn == count else f"{drawn} of {count} classes"
    return f"The first recording of {which}. Orange: brighter, blue: darker."


def _write(
    drawing: Drawing, png: bytes, recordings: Sequence[tuple[str, Events, Sensor]], duration_us: int
) -> dict[str, Any]:
    """Write both pictures. What was written: ``sheet`` and ``animation``, their files; ``frames`` of the animation, and the
    first ``shown_us`` microseconds of ``duration_us`` that it shows."""
    assert drawing.files is not None
    spans = animation_spans(duration_us, drawing.window_us)
    gif = animation(recordings, spans, drawing.slow)
    folder = drawing.files[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made ({error.strerror}): give another folder with --out.") from error
    for file, content in zip(drawing.files, (png, gif), strict=True):
        write_file(file, content)
    return {
        "sheet": str(drawing.files[0]), "animation": str(drawing.files[1]), "frames": len(spans),
        "shown_us": min(spans[-1][1], duration_us), "duration_us": duration_us,
    }  # fmt: skip


def _drawn(pictures: dict[str, Any] | None) -> list[str]:
    if pictures is None:
        return ["To see it: --out FOLDER writes a sheet of frames (.png) and an animation (.gif)."]
    shown, whole = pictures["shown_us"], pictures["duration_us"]
    line = f"written: {visible(pictures['sheet'])} and {visible(pictures['animation'])}, {counted(pictures['frames'], 'frame')}"
    if shown < whole:
        enough = whole // MOST_FRAMES // 1000 + 1
        line += f", of the first {time_text(shown)} of {time_text(whole)}; --window_ms {enough} shows all"
    return [line]


def _described(figures: dict[str, Any]) -> list[str]:
    """The figures of a recording, a line each."""
    width, height = figures["sensor"]
    sensor = {
        "file": "{} x {} pixels, as the file states", "option": "{} x {} pixels, as --sensor says",
        "events": "at least {} x {} pixels, by the events",
    }[figures["sensor_from"]].format(width, height)  # fmt: skip
    events, outside, hot, gap = figures["events"], figures["outside"], figures["hot"], figures["longest_gap"]
    polarities = (f"{figures[name]:,} {name} ({figures[name] / events:.1%})" for name in ("darker", "brighter"))
    if figures["mean_rate"] is None:
        rate = "none, all events are at one time"
    else:
        mean, peak = (rate_text(figures[name]) for name in ("mean_rate", "peak_rate"))
        rate = f"{mean} events/s in the mean, {peak} in the busiest {time_text(figures['peak_window_us'])}"
    strays = "no event" if outside["first"] is None else (
        f"{counted(outside['events'], 'event')}; the first is number {outside['first']['number']:,}, at ({outside['first']['x']}, "
        f"{outside['first']['y']}), {time_text(outside['first']['after_us'])} after the first of all"
    )  # fmt: skip
    named = ", ".join(f"({p['x']}, {p['y']}) {p['share']:.2%}" for p in hot["pixels"])
    more = ", ..." if hot["count"] > len(hot["pixels"]) else ""
    rule = f"(over {HOT_TIMES} times its neighbours' mean, and {HOT_LEAST} events at least)"
    noisy = f"{hot['count']:,} {rule} with {hot['events'] / events:.2%} of all events:\n{'':14}{named}{more}"
    rows = {
        "format": figures["format"],
        "sensor": sensor,
        "duration": f"{time_text(figures['duration_us'])}, from {figures['start_us']:,} us of the file's clock",
        "events": f"{events:,}: {', '.join(polarities)}",
        "rate": rate,
        "order": f"{figures['disordered']:,} out of order, {figures['equal_times']:,} at the time of the one before",
        "outside": f"{strays} outside the sensor" if outside["first"] is None else strays,
        "hot pixels": noisy if hot["count"] else f"none {rule}",
        "longest gap": f"{time_text(gap['us'])} without an event, {time_text(gap['after_us'])} after the first",
    }
    return [f"  {name:<12}{text}" for name, text in rows.items()]


def _rate_chart(events: Events) -> list[str]:
    """The events a second over time as bars."""
    windows = rate_windows(events, COLUMNS)
    edges = windows["edges_us"]
    if len(edges) < 3:
        return []
    counts = zip(windows["darker"], windows["brighter"], edges, edges[1:], strict=False)
    rates = [1e6 * (darker + brighter) / (end - start) for darker, brighter, start, end in counts]
    steps = " ....####" if Terminal().options.ascii_only else EIGHTHS
    lines = []
    for line in reversed(range(LINES)):
        filled = (ceil(8 * (LINES * rate / max(rates) - line)) for rate in rates)  # so that one event is seen
        label = rate_text(max(rates)) if line == LINES - 1 else ""
        lines.append(f"  {label:>10} |{''.join(steps[min(max(n, 0), 8)] for n in filled)}".rstrip())
    end = time_text(edges[-1] - 1)
    return ["", "  events a second", *lines, f"  {0:>10} +{'-' * len(rates)}", f"{'':13}0{end:>{len(rates) - 1}}"]


def _table(root: Path, rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows of a folder as a table of lines."""
    table = Table(title=f"{root}: medians of the recordings")
    parts = any(row["part"] for row in rows)
    if parts:
        table.add_column("part")
    table.add_column("class", overflow="fold")
    for name in ("items", "events", "duration", "events/s", "brighter", "sensor"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        known = row["events"] is not None
        cells = [
            f"{row['events']:,.0f}", time_text(row["duration_us"]),
            "" if row["rate"] is None else rate_text(row["rate"]), f"{row['brighter']:.1%}",
            f"{row['sensor'][0]} x {row['sensor'][1]}",
        ] if known else [""] * 5  # fmt: skip
        table.add_row(*[row["part"]] * parts, row["class"], f"{row['recordings']:,}", *cells)
    console = Terminal()
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


def _oddities(rows: Sequence[dict[str, Any]], unreadable: dict[str, str]) -> list[str]:
    lines = []
    if any(row["sensor_from"] == "events" for row in rows):
        lines.append("The files state no sensor: it is at least so large, by the events.")
    if outside := sum(row["outside"] for row in rows):
        lines.append(f"{counted(outside, 'event')} outside the sensor.")
    if hot := sum(row["hot"] for row in rows):
        lines.append(f"{counted(hot, 'hot pixel')}: trevsnn data show FILE names those of a recording.")
    if empty := [" ".join(filter(None, (row["part"], row["class"]))) for row in rows if not row["recordings"]]:
        lines.append(f"No recordings: {visible(listed(empty, NAMED))}.")
    if unreadable:
        lines.append(f"{len(unreadable):,} cannot be read and are left out of the medians:")
        lines += [f"  {visible(text)}" for text in list(unreadable.values())[:NAMED]]
        lines += [f"  and {len(unreadable) - NAMED} more"] * (len(unreadable) > NAMED)
    return lines
