"""Reading recordings of event cameras: from files to arrays of events.

Formats of fixed-width words are decoded here, by their published layouts; AEDAT 4 and HDF5 by ``aedat`` (MIT) and
``h5py`` (BSD), the optional extra ``events``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.events.convention import AS_STATED, Convention
from trevsnn.data.part import UnreadableError
from trevsnn.errors import RunError, UsageError

#: x and y in pixels, t in microseconds, p 0 (darker) or 1 (brighter).
EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.uint8)])
Events = NDArray[np.void]


def read_recording(path: Path, convention: Convention = AS_STATED) -> Events:
    """All events of a recording, in the order of time.

    ===========  =====================================================================
    ``.aedat``   AEDAT 2.0 of a DVS128 (CIFAR10-DVS), AEDAT 3.1 (DVS128 Gesture)
    ``.aedat4``  AEDAT 4 (iniVation DV)
    ``.bin``     40-bit words of N-MNIST and N-Caltech101
    ``.dat``     Prophesee DAT, version 2 (N-CARS)
    ``.h5``      HDF5 with datasets x, y, t, p, at the top or in one group
    ``.bs3``     56-bit words of SLAYER's DVS128 Gesture clips
    ===========  =====================================================================

    Raises:
        UnreadableError: the file is missing, truncated, empty, or not of its format.
        RunError: the file's ending is none of these.
        UsageError: the library that reads it, of the extra ``events``, is not installed.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise RunError(f"{path}: no recordings end in {path.suffix or 'nothing'}; known are {', '.join(READERS)}.")
    try:
        events = reader(path)
    except UsageError:
        raise
    except FileNotFoundError as error:
        raise UnreadableError(f"{path} does not exist: has the data folder moved?") from error
    except Exception as error:  # readers of other people's formats raise what they like
        raise UnreadableError(f"{path} cannot be read as a recording ({error}): fetch it again.") from error
    if not len(events):
        raise UnreadableError(f"{path} holds no events: fetch it again, or remove it.")
    return events[np.argsort(events["t"], kind="stable")]


def _events(x: Any, y: Any, t: Any, p: Any) -> Events:
    events = np.empty(len(x), EVENT)
    for name, values in zip("xytp", (x, y, t, p), strict=True):
        events[name] = values
    return events


def _words(path: Path, dtype: Any, offset: int = 0) -> NDArray[Any]:
    """A file's fixed-width words from a byte on. An incomplete word at the end means that the file was cut off."""
    content = path.read_bytes()[offset:]
    width = np.dtype(dtype).itemsize
    if len(content) % width:
        raise ValueError(f"it ends within an event, {len(content) % width} of {width} bytes into it")
    return np.frombuffer(content, dtype)


def _read_nmnist(path: Path) -> Events:
    """x8 y8 p1 t23, big endian; y = 240 stands for 2^13 us that the timestamps of the words from there on leave out."""
    bytes_N5 = _words(path, np.dtype((np.uint8, 5))).astype(np.int64)
    x, y, high, middle, low = bytes_N5.T
    overflow = y == 240
    t = ((high & 127) << 16 | middle << 8 | low) + 2**13 * np.cumsum(overflow)
    return _events(x, y, t, high >> 7)[~overflow]


def _read_slayer(path: Path) -> Events:
    """x12 y12 channel8 t24, big endian, microseconds."""
    b = _words(path, np.dtype((np.uint8, 7))).astype(np.int64).T
    return _events(b[0] << 4 | b[1] >> 4, (b[1] & 15) << 8 | b[2], b[4] << 16 | b[5] << 8 | b[6], b[3])


def _read_prophesee(path: Path) -> Events:
    """A header of lines with %, two bytes, then little-endian 64-bit words: t32, x14, y14, p4."""
    content = path.read_bytes()
    offset = 0
    while content[offset : offset + 1] == b"%":
        offset = content.index(b"\n", offset) + 1
    words = _words(path, np.dtype([("t", "<u4"), ("a", "<u4")]), offset + 2)
    return _events(words["a"] & 0x3FFF, words["a"] >> 14 & 0x3FFF, words["t"], words["a"] >> 28 & 1)


def _read_aedat(path: Path) -> Events:
    content = path.read_bytes()
    version = re.match(rb"#!AER-DAT(\d)\.\d", content)
    if version is None:
        raise ValueError("it does not begin with #!AER-DAT")
    if version[1] == b"2":
        offset = 0
        while content[offset : offset + 1] == b"#":
            offset = content.index(b"\n", offset) + 1
        return _aedat2(_words(path, np.dtype([("a", ">u4"), ("t", ">u4")]), offset))
    if version[1] == b"3":
        end = content.find(b"#!END-HEADER\r\n")
        if end < 0:
            raise ValueError("its header has no end")
        return _aedat3(content, end + len(b"#!END-HEADER\r\n"))
    raise ValueError(f"it is of version {version[1].decode()}; 2 and 3 end in .aedat, 4 in .aedat4")


def _aedat2(words: NDArray[Any]) -> Events:
    """Addresses of a DVS128: y7 x7 p1 in the low 15 bits, p = 0 brighter; y counts from below."""
    polarity = words[(words["a"] & 0x8000) == 0]  # the others are signals from outside the sensor
    address = polarity["a"]
    return _events(127 - (address >> 1 & 127), 127 - (address >> 8 & 127), polarity["t"], 1 - (address & 1))


def _aedat3(content: bytes, offset: int) -> Events:
    """Packets with a header of 28 bytes; polarity events, type 1, are x15 y15 p1 valid1 t32, little endian."""
    packets = []
    while offset < len(content):
        header = content[offset : offset + 28]
        if len(header) < 28:
            raise ValueError("it ends within a packet")
        kind, size, count = int.from_bytes(header[:2], "little"), *np.frombuffer(header, "<i4")[[1, 5]].tolist()
        packet = content[offset + 28 : offset + 28 + size * count]
        if size < 1 or count < 0 or len(packet) < size * count:
            raise ValueError("it ends within a packet")
        if kind == 1:
            words = np.frombuffer(packet, np.dtype([("a", "<u4"), ("t", "<i4")]))
            words = words[words["a"] & 1 == 1]  # the valid ones
            packets.append(_events(words["a"] >> 17, words["a"] >> 2 & 0x7FFF, words["t"], words["a"] >> 1 & 1))
        offset += 28 + size * count
    return np.concatenate(packets) if packets else np.empty(0, EVENT)


def _read_aedat4(path: Path) -> Events:
    decoder = _extra("aedat").Decoder(path)
    packets = [packet["events"] for packet in decoder if "events" in packet]
    words = np.concatenate(packets) if packets else np.empty(0, [(n, "u8") for n in ("x", "y", "t", "on")])
    return _events(words["x"], words["y"], words["t"], words["on"])


def _read_hdf5(path: Path) -> Events:
    with _extra("h5py").File(path) as file:
        groups = [file, *(item for item in file.values() if hasattr(item, "keys"))]
        for group in groups:
            if all(name in group for name in "xytp"):
                return _events(*(np.asarray(group[name]) for name in "xytp"))
    raise ValueError("it has no datasets x, y, t and p, at the top or in one group")


def _extra(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"reading these recordings needs {module}: pip install 'trevsnn[events]'.") from error


READERS: dict[str, Callable[[Path], Events]] = {
    ".aedat": _read_aedat,
    ".aedat4": _read_aedat4,
    ".bin": _read_nmnist,
    ".dat": _read_prophesee,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".bs3": _read_slayer,
}
