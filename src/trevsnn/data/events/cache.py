"""Recordings as frames, binned once and kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from rich.progress import track

from trevsnn.data.config import DataConfig
from trevsnn.data.convention import Convention
from trevsnn.data.events.excerpts import each, file_of, read_excerpt
from trevsnn.data.events.frames import Binned, Binning, Counts
from trevsnn.data.part import CACHE, FileList
from trevsnn.errors import RunError, UnreadableError
from trevsnn.files import LARGE, read_json, renamed_when_complete
from trevsnn.terminal import Terminal

CACHE_VERSION = 3  # raise it when the same parameters come to give other frames
#: Of counts, the narrowest first: most recordings need one byte a pixel, and a file has one type.
TYPES = (np.dtype("uint8"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8"))


class EventFrames(FileList):
    """Recordings as frames (T, 2, H, W) of unsigned counts, binned once and kept in one file of the cache.

    The file is named by a hash of everything its content depends on: the excerpts' names, their files' sizes and times of
    change, and how they are binned. A JSON file beside it holds, with ``on_unreadable: skip``, which recordings cannot be
    read and of which events outside the sensor were dropped, of which one warning tells; and the SHA-256 of the frames and of these,
    which is checked whenever they are opened: what is damaged, or was replaced, is made anew.

    Args:
        listing: the recordings, or excerpts of them (:func:`trevsnn.data.events.excerpts.read_excerpt`), and labels.
        frames: T.
        config: data.* of the run.

    Raises:
        RunError: ``image_size`` is larger than the sensor, or the cache cannot be written.
        UnreadableError: a recording is missing, damaged, or has events outside the sensor; with ``skip``, all of them are.
        UsageError: the library that reads the recordings is not installed.
    """

    channels = 2
    mean, std = (0.0, 0.0), (1.0, 1.0)

    def __init__(self, listing: FileList, frames: int, config: DataConfig) -> None:
        super().__init__(listing.root, listing.files, listing.labels_N.tolist(), listing.classes)
        binning, convention = Binning.of(config, frames), config.convention
        self._shape = (len(self.files), frames, 2, *config.size_HW)
        key = [CACHE_VERSION, str(self.root.resolve()), *astuple(binning), *astuple(convention)]
        digest = hashlib.sha256(json.dumps([*key, *map(self._stamp, self.files)]).encode()).hexdigest()
        self.cache = Path(config.cache or CACHE / "frames") / f"{digest[:32]}.npy"
        about = self._checked() or self._fill(partial(_binned, self.root, binning, convention), config.workers)
        self._problems: dict[str, str] = about["problems"]
        self._frames_NTCHW = np.load(self.cache, mmap_mode="r")
        self._say(about["dropped"])

    def read(self, index: int) -> Counts:
        """An item's counts (T, 2, H, W).

        Raises:
            UnreadableError: its recording cannot be read (``on_unreadable: skip``).
        """
        if (problem := self._problems.get(str(index))) is not None:
            raise UnreadableError(problem)
        return np.asarray(self._frames_NTCHW[index])

    def _say(self, dropped: Mapping[str, tuple[int, str]]) -> None:
        """Warn of recordings that cannot be read, and of events that were dropped."""
        if self._problems:
            first = next(iter(self._problems.values()))
            warnings.warn(
                f"{len(self._problems)} of {len(self)} recordings cannot be read and are skipped, such as: {first}",
                stacklevel=2,
            )
        if dropped:
            events = sum(count for count, _ in dropped.values())
            index, (_, first) = next(iter(dropped.items()))
            warnings.warn(
                f"{events} events outside the sensor were dropped, in {len(dropped)} of {len(self)} recordings: of "
                f"{self.name(int(index))} {first}",
                stacklevel=2,
            )

    def _size(self, file: str) -> int | None:
        return super()._size(file_of(file))

    def _stamp(self, file: str) -> tuple[str, int, int]:
        """An item's name, and the size and time of change of its file."""
        try:
            about = (self.root / file_of(file)).stat()
        except OSError as error:
            raise UnreadableError(f"{self.root / file} does not exist: has the data folder moved?") from error
        return file, about.st_size, about.st_mtime_ns

    @property
    def _about(self) -> Path:
        return self.cache.with_suffix(".json")

    def _checked(self) -> dict[str, Any] | None:
        """What the file of JSON says of that of frames; None where one is missing or the two do not belong together."""
        try:
            about = read_json(self._about, LARGE)
            with self.cache.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
                if _with_lists(digest, about["problems"], about["dropped"]) != about["sha256"]:
                    raise ValueError("it has another SHA-256")
            shape, dtype = (found := np.load(self.cache, mmap_mode="r")).shape, found.dtype
            if shape != self._shape or dtype not in TYPES:
                raise ValueError(f"it holds {dtype} {shape}")
            return about
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            warnings.warn(f"the cache {self.cache} is damaged ({error}) and is made anew", stacklevel=2)
            return None

    def _fill(self, binned: Callable[[str], Binned | str], workers: int) -> dict[str, Any]:
        """Write the cache's files under other names and rename them: another process may do the same at the same time.

        Returns:
            The content of that of JSON.
        """
        try:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            for dtype in TYPES:
                every = each(binned, self.files, workers)
                # On stderr, as stdout may be JSON.
                every = track(every, "binning events", len(self), console=Terminal(stderr=True))
                if (about := self._write(every, dtype)) is not None:
                    return about
            raise AssertionError("64 bits hold any count")
        except OSError as error:
            raise RunError(
                f"the cache {self.cache.parent} cannot be written ({error.strerror}): set data.cache."
            ) from error

    def _write(self, every: Iterable[Binned | str], dtype: np.dtype[Any]) -> dict[str, Any] | None:
        """Write all frames with counts of one type. None, with nothing written, where it does not hold a count."""
        problems: dict[str, str] = {}
        dropped: dict[str, tuple[int, str | None]] = {}
        nothing = np.zeros(self._shape[1:], dtype).tobytes()
        with contextlib.suppress(_TooWideError), renamed_when_complete(self.cache) as file:
            hashed = _Hashed(file)
            header = {"descr": dtype.str, "fortran_order": False, "shape": self._shape}
            np.lib.format.write_array_header_1_0(hashed, header)  # type: ignore[arg-type]
            for index, item in enumerate(every):
                if isinstance(item, str):
                    problems[str(index)] = item
                    hashed.write(nothing)
                    continue
                if not np.can_cast(item.counts_TCHW.dtype, dtype):
                    raise _TooWideError
                if item.dropped:
                    dropped[str(index)] = item.dropped, item.first
                hashed.write(item.counts_TCHW.astype(dtype).tobytes())
            if len(problems) == len(self):
                raise UnreadableError(f"not one of {len(self)} recordings can be read: {problems['0']}")
            sha256 = _with_lists(hashed.digest, problems, dropped)
            about = {"sha256": sha256, "problems": problems, "dropped": dropped}
            with renamed_when_complete(self._about) as beside:
                beside.write(json.dumps(about).encode())
            return about
        return None


class _TooWideError(Exception):
    """A count does not fit into the type of the file."""


class _Hashed:
    """A file that is written to, and the SHA-256 of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, content: bytes) -> None:
        self.digest.update(content)
        self.file.write(content)


def _with_lists(digest: Any, problems: object, dropped: object) -> str:
    """The SHA-256 of a file of frames and of what its file of JSON says of them."""
    digest.update(json.dumps([problems, dropped]).encode())
    return digest.hexdigest()


def _binned(root: Path, binning: Binning, convention: Convention, name: str) -> Binned | str:
    """The frames of an item; where what cannot be read is skipped, what is wrong with it."""
    try:
        try:
            return binning(read_excerpt(root, name, convention))
        except ValueError as error:
            raise UnreadableError(f"{root / name} does not fit its data set: {error}.") from error
    except UnreadableError as error:
        if not binning.skip:
            raise
        return str(error)
