"""How many millions of events a second recordings are read at, by format, beside other libraries where they are installed.

    python benchmarks/events.py [--events 2000000] [--passes 5] [RECORDING ...]

Without recordings events are made up: a sensor of 640 x 480 pixels, a million events a second. Files are in the page cache, one thread. What others
read is counted and compared: where the number of events differs, a table says so in place of the rate. Others are
expelliarmus, evt3, evlib, aedat, dv-processing and evutils (``pip install`` them; some are GPL).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # what writes the files

from event_files import WRITERS, write_aedat3, write_aedat4
from trevsnn.data.events.recordings import EVENT, open_recording


def made_up(n: int) -> np.ndarray:
    dice = np.random.default_rng(0)
    events = np.empty(n, EVENT)
    events["t"], events["p"] = np.sort(dice.integers(0, n, n)), dice.integers(0, 2, n)
    events["x"], events["y"] = dice.integers(0, 640, n), dice.integers(0, 480, n)
    return events


def trevsnn(path: Path) -> int:
    return len(open_recording(path).events)


def expelliarmus(path: Path) -> int:
    from expelliarmus import Wizard

    with path.open("rb") as file:
        raw = "evt2" if b"evt 2" in file.read(1000) else "evt3"
    return len(Wizard(encoding="dat" if path.suffix == ".dat" else raw).read(path))


def evt3(path: Path) -> int:
    import evt3

    return len(evt3.decode_file(str(path)))


def evlib(path: Path) -> int:
    import evlib

    return len(evlib.load_events(str(path)).collect())


def aedat(path: Path) -> int:
    import aedat

    return sum(len(packet["events"]) for packet in aedat.Decoder(str(path)) if "events" in packet)


def dv_processing(path: Path) -> int:
    import dv_processing

    recording, count = dv_processing.io.MonoCameraRecording(str(path)), 0
    while (events := recording.getNextEventBatch()) is not None:
        count += len(events.numpy())
    return count


def evutils(path: Path) -> int:
    from evutils.io import EventReader

    events = EventReader(str(path), max_events=1 << 40).read_all()
    return len((events[0] if isinstance(events, tuple) else events).x)


#: What is said to read a file of :data:`event_files.WRITERS`.
OTHERS: dict[str, tuple[Callable[[Path], int], ...]] = {
    "evt2.raw": (expelliarmus, evlib, evutils), "evt3.raw": (expelliarmus, evt3, evlib, evutils),
    "prophesee.dat": (expelliarmus, evutils), "lz4.aedat4": (aedat, dv_processing, evlib, evutils),
    "plain.aedat4": (aedat, dv_processing, evlib, evutils), "aedat3.aedat": (evutils,), "davis.aedat": (evutils,),
    "plain.h5": (evlib,), "table.csv": (evutils,), "arrays.npz": (evutils,),
}  # fmt: skip

BY_ENDING = {".raw": OTHERS["evt3.raw"], ".dat": OTHERS["prophesee.dat"], ".aedat4": OTHERS["lz4.aedat4"]}


def rate(read: Callable[[Path], int], path: Path, events: int, passes: int) -> str:
    """Millions of events a second, the median; or why there is none."""
    seconds = []
    try:
        for _ in range(passes):
            start = time.process_time()
            count = read(path)
            seconds.append(time.process_time() - start)
    except ImportError:
        return ""
    except Exception as error:  # other people's libraries raise what they like
        return f"{type(error).__name__}"
    return f"{events / statistics.median(seconds) / 1e6:.1f}" if count == events else f"{count} events"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("recordings", nargs="*", type=Path)
    options = parser.parse_args()
    print("| file | MB | trevsnn | others |\n|---|---:|---:|---|")
    for path in options.recordings:
        print_row(path, trevsnn(path), BY_ENDING.get(path.suffix, ()), options.passes)
    if options.recordings:
        return
    every = made_up(options.events)
    with tempfile.TemporaryDirectory() as folder:
        for name, write in WRITERS.items():
            events = every.copy()
            if name in ("aedat2.aedat", "nmnist.bin", "davis.aedat", "slayer.bs3"):  # smaller sensors
                sides = {"davis.aedat": (346, 260)}.get(name, (128, 128))
                events["x"] %= sides[0]
                events["y"] %= sides[1]
            path = Path(folder) / name
            if name == "aedat3.aedat":
                write_aedat3(path, events, size=1000)  # as cameras have it, of a thousand events
            elif name.endswith("aedat4"):
                write_aedat4(path, events, int(name == "lz4.aedat4"), 1000, (640, 480))
            else:
                write(path, events)
            print_row(path, len(events), OTHERS.get(name, ()), options.passes)


def print_row(path: Path, events: int, others: tuple[Callable[[Path], int], ...], passes: int) -> None:
    rates = {other.__name__: rate(other, path, events, passes) for other in others}
    shown = ", ".join(f"{name} {value}" for name, value in rates.items() if value)
    print(
        f"| {path.name} | {path.stat().st_size / 1e6:.1f} | {rate(trevsnn, path, events, passes)} | {shown} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
