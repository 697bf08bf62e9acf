"""``trevsnn data``: prepare and check data sets."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Literal

from trevsnn.cli.types import NonNegativeInt, PositiveInt
from trevsnn.data.convention import Convention, Polarity, TimeUnit
from trevsnn.errors import RunError
from trevsnn.terminal import Terminal


def prepare(set: Literal["imagenet"], *, archives: Path, out: Path, no_hashes: bool = False) -> None:
    """Extract ImageNet's archives.

    Args:
        set: Which data set.
        archives: Folder with the official archives.
        out: Folder to fill with train/WNID and val/WNID.
        no_hashes: Take archives that are not the official ones.
    """
    from trevsnn.data.pictures import imagenet

    console = Terminal()
    counts = imagenet.prepare(archives, out, console, check_hashes=not no_hashes)
    console.print(f"done: {out}  {counts['train']} train and {counts['val']} val pictures", soft_wrap=True)


def check(
    root: Path,
    *,
    workers: NonNegativeInt = 2,
    sensor: tuple[PositiveInt, PositiveInt] | None = None,
    time_unit: TimeUnit | None = None,
    polarity: Polarity | None = None,
    all: bool = False,
    json: bool = False,
) -> None:
    """Read every file of a data set and name those that are unreadable or odd.

    Args:
        root: Folder with train, val or test, or with the class folders.
        workers: Reading processes.
        sensor: Of recordings, width and height of the sensor in pixels, where files do not state them.
        time_unit: Of the times in .csv, .npz and HDF5, where the file does not state it.
        polarity: In these, binary for 0 and 1, signed for -1 and 1.
        all: Name all of them, and not the first of each kind alone.
        json: Print JSON, which has all.

    Raises:
        RunError: a file cannot be read, or a training would not begin.
    """
    from trevsnn.data.check import SHOWN, Told, check_folder, print_check

    result = check_folder(root, workers, Told(sensor, Convention(time_unit, polarity)))
    if json:
        print(dumps(result))
    else:
        print_check(result, Terminal(), None if all else SHOWN)
    faults = [result["problem"]] * (result["problem"] is not None)
    if result["unreadable"]:
        faults.append(
            f"{len(result['unreadable'])} files below {root} cannot be read: replace them, or train with "
            "--data.on_unreadable skip."
        )
    if faults:
        raise RunError("\n".join(faults))
