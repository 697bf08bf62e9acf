"""``trevsnn export`` and ``trevsnn stream``."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import Any

from rich.table import Table

from trevsnn.data.convention import Polarity, TimeUnit
from trevsnn.data.overrides import AS_TRAINED, DataOverrides
from trevsnn.deploy import Format
from trevsnn.errors import UsageError
from trevsnn.files import check_picture_place, write_picture
from trevsnn.run.folder import Weights
from trevsnn.terminal import Terminal, say


def export(
    run: Path,
    *,
    out: Path | None = None,
    formats: tuple[Format, ...] | None = None,
    weights: Weights = "last",
    compact: bool = False,
    data: DataOverrides = AS_TRAINED,
) -> None:
    """Write a trained network in forms that can be deployed.

    Args:
        run: Folder of the run, or a shipped network's name.
        out: Folder to make (default: RUN-exported).
        formats: Besides safetensors (default: all but nir).
        weights: Of the last or the best epoch.
        compact: Round the network's weights to 8 bits and store them so, in a quarter of the bytes.
        data: Own data and size.
    """
    from trevsnn.deploy.card import folding_sentence
    from trevsnn.deploy.export import export_run

    named = run.resolve() if run.name in ("", "..") else run  # "." has no name of its own
    out = out or named.parent / f"{named.name}-exported"
    report = export_run(run, out, weights, formats, compact, data)
    table = Table("form", "largest difference of a logit", "same class", title=f"{out}, {report['checkpoint']}")
    for row in report["comparisons"]:
        table.add_row(row["name"], f"{row['largest']:.1e}", f"{row['same_class']} of {row['items']}")
    console = Terminal()
    console.print(table)
    console.print(f"Compared on {report['items']}.")
    console.print(folding_sentence(report["spikes"]))


def stream(
    run: Path,
    recording: Path,
    *,
    window_ms: float | None = None,
    hop_ms: float | None = None,
    format: str | None = None,
    time_unit: TimeUnit | None = None,
    polarity: Polarity | None = None,
    weights: Weights = "last",
    picture: Path | None = None,
    json: bool = False,
) -> None:
    """Play a recording to a network: a clip frame by frame, or one of any length in windows that slide.

    Args:
        run: Folder of the run or its export, or n-mnist, which comes trained.
        recording: File of an event camera; - for what arrives on standard input.
        window_ms: Length of a window, milliseconds (default with - or --hop_ms: data.piece_ms of the run).
        hop_ms: From one window to the next (default: a frame, the window's length over T).
        format: Of what arrives on standard input, as files of it end: raw, csv, bin, dat, aedat, aedat4 or bs3.
        time_unit: Of the times in .csv, .npz and HDF5, where neither the file nor the run states it.
        polarity: In these, binary for 0 and 1, signed for -1 and 1.
        weights: Of the last or the best epoch.
        picture: File to draw the probabilities over time into.
        json: Print JSON: of a clip a list, of windows one object a line, as they come.
    """
    check_picture_place(picture)
    live = recording == Path("-")
    if (format is not None) != live:
        raise UsageError(
            "--format belongs to standard input, which has no name to tell it by: "
            f"{'give it, such as --format raw' if live else 'leave it out, or give - as the recording'}."
        )
    data = DataOverrides(time_unit=time_unit, polarity=polarity)
    if window_ms is None and hop_ms is None and not live:
        _stream_clip(run, recording, weights, data, picture, json)
    else:
        _stream_windows(run, recording, window_ms, hop_ms, format, weights, data, picture, json)


def _stream_clip(
    run: Path, recording: Path, weights: Weights, data: DataOverrides, picture: Path | None, json: bool
) -> None:
    from trevsnn.deploy.play import play, play_picture

    console = Terminal(quiet=json)
    rows: list[dict[str, Any]] = []
    for row in play(run, recording, weights, data):
        rows.append(row)
        console.print(
            f"frame {row['frame']:>3}  {row['until'] / 1e3:8.1f} ms  {_likeliest(row)}  {1e3 * row['seconds']:6.1f} ms to compute",
            soft_wrap=True,
        )
    if picture is not None:
        write_picture(play_picture(rows, recording.name), picture)
    if json:
        print(dumps(rows))


def _stream_windows(
    run: Path,
    recording: Path,
    window_ms: float | None,
    hop_ms: float | None,
    format: str | None,
    weights: Weights,
    data: DataOverrides,
    picture: Path | None,
    json: bool,
) -> None:
    from trevsnn.deploy.live import Live
    from trevsnn.deploy.play import play_picture
    from trevsnn.run.load import load_run

    console, told = Terminal(quiet=json), Terminal(stderr=True)
    live = Live(load_run(run, weights), window_ms, hop_ms, data)
    source = recording if format is None else sys.stdin.buffer
    rows: list[dict[str, Any]] = []
    for row in live.play(source, None if format is None else f".{format.removeprefix('.')}"):
        if picture is not None and row["class"] is not None:
            rows.append(row)
        if json:
            print(dumps(row), flush=True)
        console.print(
            f"window {row['window']:>5}  {row['from'] / 1e3:9.1f} to {row['until'] / 1e3:9.1f} ms  {row['events']:>8} events  "
            f"{'nothing to see' if row['class'] is None else _likeliest(row)}", soft_wrap=True,
        )  # fmt: skip
    say(told, live.told())
    if picture is not None:
        write_picture(play_picture(rows, recording.name), picture)


def _likeliest(row: dict[str, Any]) -> str:
    bar = "█" * round(20 * row["probability"])
    return f"{row['class']:<16} {row['probability']:6.1%} {bar:<20}"
