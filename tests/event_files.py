"""Recordings of event cameras, made up and written in their formats."""

import struct
from pathlib import Path

import numpy as np
import pytest

from trevsnn.data.config import DataConfig
from trevsnn.data.events.recordings import EVENT


def some_events(n: int, sensor: tuple[int, int] = (34, 34), seed: int = 0) -> np.ndarray:
    dice = np.random.default_rng(seed)
    events = np.empty(n, EVENT)
    events["x"], events["y"] = dice.integers(0, sensor[0], n), dice.integers(0, sensor[1], n)
    events["t"], events["p"] = np.sort(dice.integers(0, 100_000, n)), dice.integers(0, 2, n)
    return events


def write_nmnist(path: Path, events: np.ndarray) -> None:
    """40-bit words x8 y8 p1 t23, big endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = np.empty((len(events), 5), np.uint8)
    words[:, 0], words[:, 1] = events["x"], events["y"]
    high = events["p"].astype(np.int64) << 7 | events["t"] >> 16
    words[:, 2], words[:, 3], words[:, 4] = high, events["t"] >> 8 & 255, events["t"] & 255
    path.write_bytes(words.tobytes())


def write_aedat3(path: Path, events: np.ndarray, invalid: int = 0, size: int = 100) -> None:
    """A packet of another type, then packets of so many polarity events; the first ``invalid`` ones marked as such."""
    content = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    header = np.array([2 | 1 << 16, 8, 4, 0, 2, 2, 2], "<i4").tobytes()
    content += header + bytes(16)
    for start in range(0, len(events), size):
        part = events[start : start + size]
        valid = np.arange(start, start + len(part)) >= invalid
        address = part["x"].astype(np.uint32) << 17 | part["y"].astype(np.uint32) << 2
        address |= part["p"].astype(np.uint32) << 1 | valid
        for overflows in np.unique(part["t"] >> 31):
            held = part["t"] >> 31 == overflows
            words = np.empty(int(held.sum()), [("a", "<u4"), ("t", "<i4")])
            words["a"], words["t"] = address[held], part["t"][held] & 0x7FFFFFFF
            count = len(words)
            content += np.array([1 | 1 << 16, 8, 4, overflows, count, count, count], "<i4").tobytes() + words.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_aedat2(path: Path, events: np.ndarray, chip: str | None = None) -> None:
    """Of a DVS128 without ``chip``, else of a DAVIS as jAER writes it, of 346 x 260 pixels."""
    e = {name: events[name].astype(np.uint32) for name in "xyp"}
    if chip is None:
        address = (127 - e["y"]) << 8 | (127 - e["x"]) << 1 | (1 - e["p"])
    else:
        address = (259 - e["y"]) << 22 | (345 - e["x"]) << 12 | e["p"] << 11
    words = np.empty(len(events), [("a", ">u4"), ("t", ">u4")])
    words["a"], words["t"] = address, events["t"] & 0xFFFFFFFF
    lines = ["#!AER-DAT2.0", "# This is a raw AE data file", *([f"# AEChip: {chip}"] if chip else [])]
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode() + words.tobytes())


def write_dat(path: Path, events: np.ndarray) -> None:
    """Prophesee DAT of version 2: words t32 p4 y14 x14."""
    words = np.empty(len(events), [("t", "<u4"), ("a", "<u4")])
    words["t"] = events["t"] & 0xFFFFFFFF
    words["a"] = (
        events["p"].astype(np.uint32) << 28 | events["y"].astype(np.uint32) << 14 | events["x"].astype(np.uint32)
    )
    path.write_bytes(b"% Data file containing CD events.\n% Version 2\n\x0c\x08" + words.tobytes())


def write_bs3(path: Path, events: np.ndarray) -> None:
    """56-bit words x12 y12 channel8 t24, big endian."""
    e = {name: events[name].astype(np.int64) for name in "xytp"}
    number = e["x"] << 44 | e["y"] << 32 | e["p"] << 24 | e["t"] & 0xFFFFFF
    path.write_bytes(number.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 1:].tobytes())


def write_evt2(path: Path, events: np.ndarray) -> None:
    """EVT 2.0: the upper bits of the time before each event, with a trigger now and then."""
    t = events["t"]
    words = np.empty((len(events), 3), "<u4")
    words[:, 0] = 8 << 28 | t >> 6 & 0xFFFFFFF
    words[:, 1] = 10 << 28 | 5
    words[:, 2] = events["p"].astype(np.int64) << 28 | (t & 63) << 22 | events["x"].astype(np.int64) << 11 | events["y"]
    path.write_bytes(b"% evt 2.0\n% geometry 34x34\n% end\n" + words.tobytes())


def write_evt3(path: Path, events: np.ndarray) -> None:
    """EVT 3.0: each event by itself, even ones as a pixel, odd ones as one of a row of twelve."""
    words: list[tuple[int, int]] = []
    for i, (x, y, t, p) in enumerate(events.tolist()):
        words += [(8, t >> 12 & 0xFFF), (6, t & 0xFFF), (0, y)]
        words += [(3, p << 11 | x - x % 12), (4, 1 << x % 12)] if i % 2 else [(2, p << 11 | x), (10, 7)]
    content = np.array([kind << 12 | value for kind, value in words], "<u2").tobytes()
    path.write_bytes(b"% evt 3.0\n% format EVT3;height=34;width=34\n% end\n" + content)


def write_aedat4(
    path: Path, events: np.ndarray, compression: int = 1, size: int = 100, sensor: tuple[int, int] = (34, 34)
) -> None:
    """AEDAT 4 with packets of so many events, uncompressed (0) or by LZ4 (1) or Zstandard (3), without a table of the packets."""
    library = {1: "lz4.frame", 3: "zstandard"}.get(compression)
    compress = pytest.importorskip(library).compress if library else bytes

    def buffer(mark: bytes, fields: list[tuple[int, bytes]], behind: bytes) -> bytes:
        """A FlatBuffer of one table, whose fields are (bytes from its beginning, value), with its length before it."""
        size = 4 + sum(len(value) for _, value in fields)
        offsets = b"".join(struct.pack("<H", at) for at, _ in fields)
        table = struct.pack("<HH", 4 + len(offsets), size) + offsets
        root = 8 + len(table)
        body = (
            struct.pack("<I", root)
            + mark
            + table
            + struct.pack("<i", len(table))
            + b"".join(v for _, v in fields)
            + behind
        )
        return struct.pack("<I", len(body)) + body

    path_of = "/mainloop/Recorder/outInfo/"
    text = (
        f'<dv version="2.0"><node name="outInfo" path="{path_of}"><node name="0" path="{path_of}0/">'
        '<attr key="compression" type="string">LZ4</attr><attr key="originalModuleName" type="string">capture</attr>'
        '<attr key="originalOutputName" type="string">events</attr><attr key="typeIdentifier" type="string">EVTS</attr>'
        f'<node name="info" path="{path_of}0/info/"><attr key="sizeX" type="int">{sensor[0]}</attr>'
        f'<attr key="sizeY" type="int">{sensor[1]}</attr><attr key="source" type="string">camera</attr></node></node></node></dv>'
    ).encode()
    fields = [(4, struct.pack("<i", compression)), (8, struct.pack("<q", -1)), (16, struct.pack("<I", 4))]
    content = b"#!AER-DAT4.0\r\n" + buffer(b"IOHE", fields, struct.pack("<I", len(text)) + text + b"\0")
    for start in range(0, len(events), size):
        part = events[start : start + size]
        words = np.zeros(len(part), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1"), ("_", "u1", 3)])
        for name in "xytp":
            words[name] = part[name]
        packet = buffer(b"EVTS", [(4, struct.pack("<I", 4))], struct.pack("<I", len(part)) + words.tobytes())
        packet = compress(packet)
        content += struct.pack("<ii", 0, len(packet)) + packet
    path.write_bytes(content)


def write_csv(path: Path, events: np.ndarray) -> None:
    lines = [f"{t},{x},{y},{p}\n" for x, y, t, p in events.tolist()]
    path.write_text("timestamp,x,y,polarity\n" + "".join(lines))


def write_npz(path: Path, events: np.ndarray) -> None:
    np.savez(path, **{name: events[name] for name in "xytp"})


def write_hdf5(path: Path, events: np.ndarray, group: str = "/", **options: object) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name in "xytp":
            file.require_group(group).create_dataset(name, data=events[name], **options)


#: What writes a recording of a sensor of 34 x 34 pixels, by a name that says the format.
WRITERS = {
    "aedat2.aedat": write_aedat2, "davis.aedat": lambda path, events: write_aedat2(path, events, "DAVIS346B"),
    "aedat3.aedat": write_aedat3, "lz4.aedat4": write_aedat4, "plain.aedat4": lambda path, events: write_aedat4(path, events, 0),
    "nmnist.bin": write_nmnist, "slayer.bs3": write_bs3, "table.csv": write_csv, "prophesee.dat": write_dat,
    "evt2.raw": write_evt2, "evt3.raw": write_evt3, "plain.h5": write_hdf5, "arrays.npz": write_npz,
}  # fmt: skip


def folder_of_recordings(root: Path, per_class: int, parts: tuple[str, ...] = ("",)) -> None:
    for part in parts:
        for label, name in enumerate(("cat", "dog")):
            for i in range(per_class):
                events = some_events(300, seed=1000 * label + i)
                if label:  # classes differ, so that training has something to learn
                    events["y"] = events["y"] // 2
                write_nmnist(root / part / name / f"{name}_{i}.bin", events)


def event_config(tmp_path: Path, **options: object) -> DataConfig:
    return DataConfig(**{
        "name": "recordings", "root": str(tmp_path / "data"), "sensor": (34, 34), "image_size": 17,
        "cache": str(tmp_path / "cache"), **options,
    })  # fmt: skip
