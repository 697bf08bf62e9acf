"""``trevsnn data show`` and ``trevsnn data list``."""

from __future__ import annotations

import os
from json import dumps
from pathlib import Path

from trevsnn.cli.types import NonNegativeInt, PositiveFloat, PositiveInt
from trevsnn.data.config import DataConfig, Split
from trevsnn.data.convention import Convention, Polarity, TimeUnit
from trevsnn.errors import RunError, UsageError
from trevsnn.terminal import visible

MOST_FRAMES = 64  # of a sheet


def show(
    path: Path,
    *,
    out: Path | None = None,
    frames: PositiveInt = 8,
    window_ms: PositiveFloat = 33.0,
    slow: PositiveFloat = 1.0,
    sensor: tuple[PositiveInt, PositiveInt] | None = None,
    time_unit: TimeUnit | None = None,
    polarity: Polarity | None = None,
    workers: NonNegativeInt = 2,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Say what a recording of an event camera holds, or each class of a set of recordings, and draw it.

    Args:
        path: File of an event camera, or folder of recordings.
        out: Folder to write NAME.png, frames and the rate over time, and NAME.gif, an animation, into.
        frames: Frames of the PNG, each the beginning of an equal share of the time, up to three windows of it.
        window_ms: Time that a frame of the animation shows; 300 frames at most are written.
        slow: By how much the animation is slower than it was.
        sensor: Width and height of the sensor in pixels, where the file does not state them.
        time_unit: Of the times in .csv, .npz and HDF5, where the file does not state it.
        polarity: In these, binary for 0 and 1, signed for -1 and 1.
        workers: Processes that read a folder's recordings.
        overwrite: Replace pictures of that name.
        json: Print JSON.

    Raises:
        RunError: a file cannot be read or written, or a folder holds no recordings.
        UsageError: a value is out of its range.
    """
    if frames > MOST_FRAMES:
        raise UsageError(f"--frames is {frames}; {MOST_FRAMES} at most are drawn.")
    from trevsnn.cli.show_recordings import Drawing, show_folder, show_recording

    drawing = Drawing(None if out is None else _new_files(path, out, overwrite), frames, window_ms, slow)
    convention = Convention(time_unit, polarity)
    if path.is_dir():
        result, lines = show_folder(path, sensor, convention, workers, drawing)
    else:
        result, lines = show_recording(path, sensor, convention, drawing)
    print(dumps(result) if json else "\n".join(lines))


def list_(
    root: Path,
    *,
    split: Split | None = None,
    piece_ms: PositiveFloat | None = None,
    time_unit: TimeUnit | None = None,
    polarity: Polarity | None = None,
    workers: NonNegativeInt = 0,
    json: bool = False,
) -> None:
    """Name the items of a folder's parts as training takes them: a line with the file and its class, a tab between.

    Args:
        root: Folder of pictures, recordings or shards.
        split: One part. Without it, all, and lines begin with the part.
        piece_ms: Cut recordings into pieces of so many milliseconds, as data.piece_ms does.
        time_unit: Of the times in .csv, .npz and HDF5 that are to be cut, where the file does not state it.
        polarity: In these, binary for 0 and 1, signed for -1 and 1.
        workers: Processes that read the recordings which are to be cut.
        json: Print JSON.

    Raises:
        RunError: there is no such folder or part, or files are missing.
    """
    from trevsnn.cli.parser import refusals_are_usage_errors
    from trevsnn.data.items import list_items, parts_of
    from trevsnn.data.kinds import kind_of

    with refusals_are_usage_errors():
        config = DataConfig(
            name=kind_of(root),
            root=str(root),
            piece_ms=piece_ms,
            time_unit=time_unit,
            polarity=polarity,
            workers=workers,
        )
    items = list_items(config, parts_of(config) if split is None else [split])
    if json:
        print(dumps([{"split": part, "file": file, "class": name} for part, file, name in items]))
    else:
        for part, file, name in items:
            print("\t".join(map(visible, (part, file, name) if split is None else (file, name))))


def _new_files(path: Path, out: Path, overwrite: bool) -> tuple[Path, Path]:
    """The files that pictures are to be written to; refused before anything is read."""
    name = path.resolve().name if path.is_dir() else path.stem
    files = out / f"{name}.png", out / f"{name}.gif"
    for file in files:
        if file.is_dir() or (os.path.lexists(file) and not overwrite):
            raise RunError(f"{file} is there already: give another folder with --out, or --overwrite to replace it.")
    return files
