"""Recordings of event cameras, made up and written in their formats."""

from pathlib import Path

import numpy as np

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


def write_aedat3(path: Path, events: np.ndarray, invalid: int = 0) -> None:
    """A packet of another type, then packets of 100 polarity events; the first ``invalid`` ones marked as such."""
    content = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    header = np.array([2 | 1 << 16, 8, 4, 0, 2, 2, 2], "<i4").tobytes()
    content += header + bytes(16)
    for start in range(0, len(events), 100):
        part = events[start : start + 100]
        valid = np.arange(start, start + len(part)) >= invalid
        address = part["x"].astype(np.uint32) << 17 | part["y"].astype(np.uint32) << 2
        address |= part["p"].astype(np.uint32) << 1 | valid
        words = np.empty(len(part), [("a", "<u4"), ("t", "<i4")])
        words["a"], words["t"] = address, part["t"]
        content += np.array([1 | 1 << 16, 8, 4, 0, len(part), len(part), len(part)], "<i4").tobytes() + words.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


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
