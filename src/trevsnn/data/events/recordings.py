"""Reading recordings of event cameras: from files, or as they arrive, to arrays of events.

The formats are in :mod:`trevsnn.data.events.formats`; docs/do/recording-formats.md says which library was tried for which.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from trevsnn.data.convention import Convention
from trevsnn.data.events.formats.aedat import AedatDecoder
from trevsnn.data.events.formats.aedat4 import Aedat4Decoder
from trevsnn.data.events.formats.csv_table import CsvDecoder
from trevsnn.data.events.formats.decoder import Decoder
from trevsnn.data.events.formats.event import EVENT, Events, RefusedError, Sensor
from trevsnn.data.events.formats.evt import RawDecoder
from trevsnn.data.events.formats.hdf5 import Hdf5Recording
from trevsnn.data.events.formats.npz import NpzRecording
from trevsnn.data.events.formats.words import DatDecoder, NMnistDecoder, SlayerDecoder
from trevsnn.errors import RunError, UnreadableError, UsageError

__all__ = [
    "EVENT", "READERS", "Convention", "Decoder", "Events", "Recording", "blocks", "decoder_for", "open_recording", "read_recording",
]  # fmt: skip

#: Bytes that are read at a time. While they are decoded they take some thirty times as much, which is best in a processor's cache.
BLOCK = 256 << 10
#: Characters of a library's error that are shown.
MOST_SAID = 300
#: Microseconds from the first event to the last, 285 years: more is damage, and no float64 holds it.
LONGEST_US = 2**53
#: Nothing is stated: integers are microseconds, polarities 0 and 1.
UNSTATED = Convention()

#: What decodes the formats that can be decoded as they arrive, by the files' ending.
DECODERS: dict[str, Callable[[Convention], Decoder]] = {
    ".aedat": lambda _: AedatDecoder(),
    ".aedat4": lambda _: Aedat4Decoder(),
    ".bin": lambda _: NMnistDecoder(),
    ".bs3": lambda _: SlayerDecoder(),
    ".csv": CsvDecoder,
    ".dat": lambda _: DatDecoder(),
    ".raw": lambda _: RawDecoder(),
}
#: What reads those that need the whole file.
WHOLE: dict[str, Callable[[Path, Convention], Blocks]] = {
    ".h5": Hdf5Recording,
    ".hdf5": Hdf5Recording,
    ".npz": NpzRecording,
}
#: All endings of recordings.
READERS = tuple(sorted({*DECODERS, *WHOLE}))


class Blocks(Protocol):
    """A recording's events, some at a time, in the file's order.

    Attributes:
        sensor: width and height, once the file has stated them.
    """

    @property
    def sensor(self) -> Sensor | None: ...

    def __iter__(self) -> Iterator[Events]: ...


@dataclass(frozen=True)
class Recording:
    """A recording that was read.

    Attributes:
        events: in the order of time; of equal times, in the file's order.
        sensor: width and height in pixels as the file states them, or None.
        disordered: events that stood before an earlier one.
    """

    events: Events
    sensor: Sensor | None
    disordered: int


def read_recording(path: Path | str, convention: Convention = UNSTATED) -> Events:
    """All events of a recording, in the order of time.

    Args:
        path: a regular file, or a link to one, of a format that its ending names: ``.aedat``, ``.aedat4``, ``.bin``, ``.bs3``,
            ``.csv``, ``.dat``, ``.h5``, ``.hdf5``, ``.npz``, ``.raw``.
        convention: what the numbers of ``.csv``, ``.h5`` and ``.npz`` mean where the file does not say it.

    Returns:
        A structured array (N,) with the fields ``x`` and ``y`` (int32, columns and rows from the upper left), ``t`` (int64,
        microseconds) and ``p`` (uint8, 1 where it became brighter, else 0).

    Raises:
        UnreadableError: the file is missing, cut off, empty, too large, or not of its format; its clock was reset, or its times span
            more than 285 years; or it must be told what its numbers mean.
        RunError: the file's ending is none of these.
        UsageError: the library that reads it, of the extra ``events``, is not installed.
    """
    return open_recording(Path(path), convention).events


def open_recording(path: Path, convention: Convention = UNSTATED) -> Recording:
    """Read a recording.

    =====================  =================================================================================
    ``.aedat``             AEDAT 2.0 of a DVS128 (CIFAR10-DVS) or a DAVIS, AEDAT 3.0 and 3.1 (DVS128 Gesture)
    ``.aedat4``            AEDAT 4 (iniVation DV)
    ``.bin``               40-bit words of N-MNIST and N-Caltech101
    ``.bs3``               56-bit words of SLAYER's DVS128 Gesture clips
    ``.csv``               lines, the first of which names the columns x, y, t, p
    ``.dat``               Prophesee DAT, version 2 (N-CARS)
    ``.h5``, ``.hdf5``     HDF5: see :class:`trevsnn.data.events.formats.hdf5.Hdf5Recording`
    ``.npz``               arrays: see :class:`trevsnn.data.events.formats.npz.NpzRecording`
    ``.raw``               Prophesee EVT 2.0 and EVT 3.0
    =====================  =================================================================================

    Args:
        path: a regular file, or a link to one.
        convention: what the numbers of ``.csv``, ``.h5`` and ``.npz`` mean where the file does not say it.

    Raises:
        UnreadableError: the file is missing, cut off, empty, too large, or not of its format; its clock was reset, or its times span
            more than 285 years; or it must be told what its numbers mean.
        RunError: the file's ending is none of these.
        UsageError: the library that reads it, of the extra ``events``, is not installed.
    """
    suffix = _known(path)
    with _named(path):
        source = _source(path, suffix, convention)
        parts = [events for events in source if len(events)]
    if not parts:
        raise UnreadableError(f"{path} holds no events: fetch it again, or remove it.")
    events = np.concatenate(parts)
    del parts
    t = events["t"]
    earliest = np.minimum.accumulate(t[::-1])[::-1]
    disordered = int(np.count_nonzero(t > earliest))
    if disordered:
        events = events[np.argsort(t, kind="stable")]
    if int(events["t"][-1]) - int(events["t"][0]) > LONGEST_US:
        raise UnreadableError(
            f"{path} cannot be read as a recording: its events span more than 285 years. Fetch it again."
        )
    return Recording(events, source.sensor, disordered)


def decoder_for(ending: str, convention: Convention = UNSTATED) -> Decoder:
    """What decodes a recording as it arrives.

    Args:
        ending: as of a file's name, with its dot, such as ``.raw``.
        convention: as in :func:`open_recording`.

    Raises:
        UsageError: recordings of this ending are only read from a file, or there are none.
    """
    if (make := DECODERS.get(ending.lower())) is None:
        why = "are read from a file alone" if ending.lower() in WHOLE else "are not known"
        raise UsageError(
            f"recordings that end in {ending} {why}; as they arrive, those in {', '.join(DECODERS)} are read."
        )
    return make(convention)


def blocks(source: Path | BinaryIO, ending: str | None = None, convention: Convention = UNSTATED) -> Iterator[Events]:
    """The events of a recording, some at a time, in the file's order, their times contiguous.

    Args:
        source: a regular file's path, or an open binary file, of which is read what has arrived, such as ``sys.stdin.buffer``.
        ending: says the format; None for the path's own.
        convention: as in :func:`open_recording`.

    Raises:
        UnreadableError, RunError, UsageError: as :func:`open_recording`, when it comes to it.
    """
    if not isinstance(source, Path):
        decoder = decoder_for(ending or "", convention)
        with _named(getattr(source, "name", "what arrives")):
            yield from _Arriving(source, decoder)
        return
    suffix = _known(source, ending)
    with _named(source):
        yield from _source(source, suffix, convention)


class _Arriving:
    """The blocks of an open file, each decoded as it is read."""

    def __init__(self, file: BinaryIO, decoder: Decoder) -> None:
        self._file, self._decoder = file, decoder
        # a pipe's read waits until it has all that was asked for, read1 takes what there is
        self._read = getattr(file, "read1", file.read)

    @property
    def sensor(self) -> Sensor | None:
        return self._decoder.sensor

    def __iter__(self) -> Iterator[Events]:
        while content := self._read(BLOCK):
            if len(events := self._decoder.feed(content)):
                yield events
        self._decoder.finish()


class _Decoded:
    """The blocks of a file, which is open while they are read."""

    def __init__(self, path: Path, decoder: Decoder) -> None:
        self._path, self._decoder = path, decoder

    @property
    def sensor(self) -> Sensor | None:
        return self._decoder.sensor

    def __iter__(self) -> Iterator[Events]:
        with self._path.open("rb") as file:
            yield from _Arriving(file, self._decoder)


def _source(path: Path, suffix: str, convention: Convention) -> Blocks:
    if not stat.S_ISREG(path.stat().st_mode):
        raise RefusedError("it is no regular file")
    return WHOLE[suffix](path, convention) if suffix in WHOLE else _Decoded(path, DECODERS[suffix](convention))


def _known(path: Path, ending: str | None = None) -> str:
    suffix = (path.suffix if ending is None else ending).lower()
    if not suffix and not os.path.lexists(path):
        raise UnreadableError(f"{path} does not exist: has the data folder moved?")
    if suffix not in READERS:
        raise RunError(f"{path}: no recordings end in {suffix or 'nothing'}; known are {', '.join(READERS)}.")
    return suffix


@contextmanager
def _named(path: Any) -> Iterator[None]:
    """Whatever goes wrong in reading is a sentence that names the file."""
    try:
        yield
    except (UsageError, RunError):
        raise
    except FileNotFoundError as error:
        raise UnreadableError(f"{path} does not exist: has the data folder moved?") from error
    except RefusedError as error:
        raise UnreadableError(f"{path} cannot be read as a recording: {error}.") from error
    except Exception as error:  # readers of other people's formats raise what they like
        raise UnreadableError(f"{path} cannot be read as a recording ({_short(error)}): fetch it again.") from error


def _short(error: Exception) -> str:
    """What a library says is wrong, without the file's content in it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]} ..."
