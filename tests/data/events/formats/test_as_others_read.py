"""Real recordings, and files that other libraries wrote, event by event as others read them."""

import hashlib

import numpy as np
import pytest

from conftest import shared_data
from trevsnn.data.convention import Convention
from trevsnn.data.events.recordings import EVENT, blocks, open_recording
from trevsnn.errors import UnreadableError

#: Number of events and SHA-256 of them in the file's order, as others read the files: aedat 2.3.0, expelliarmus 1.1.12, evt3 0.4.1
#: (equal to evlib 0.13.2), SLAYER, and SpikingJelly 2.0.0, which has x and y the other way round in AEDAT 2.
OTHERS = {
    "event-format-samples/tonic_sample.aedat4": (
        111_954, "f49d5708db431d8fb0556ca965cf8a95f9c26125ea493aa6ed885b9a0246d317",
    ),
    "event-format-samples/expelliarmus_NCARS_obj_004397_td.dat": (
        4407, "6407b5312b4cfe67bfb2483d8870b0d48fc6bc65c53b541d3b4c87b314f383fb",
    ),
    "event-format-samples/expelliarmus_evt3_sample.raw": (
        219_596, "691a8f0b511937811d908e82e2f668067d9ce4795fad3d7604f417517e7db4d8",
    ),
    "event-format-samples/tonic_sample_nmnist.bin": (
        4325, "0f8129e45d2546ec643a26fbc3e4b428c4674de0bb18b5da2fafa2bfc242b723",
    ),
    "dvsgesture-clips/1.bs3": (63_471, "5cd69033f3a04d51ad17803b1b775dfaa0e94d5adf3f3a19a5d06045981ae490"),
    "dvs128-objects/Tesoura.aedat": (143_655, "2c3b13a09955bccdaffe0112460dd30a5b857ff5eedb2242ac2fe060fcc1175c"),
    "dvs128-objects/Lapiseira.aedat": (126_164, "72ad02fff681544971934043621533e84f9a49de9db3ca6d1f963054bd4d53c2"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_real_recordings_are_read_as_others_read_them(name):
    events = np.concatenate(list(blocks(shared_data(*name.split("/")))))
    assert events.dtype == EVENT
    packed = events.astype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "u1")])
    assert (len(events), hashlib.sha256(packed.tobytes()).hexdigest()) == OTHERS[name]


def others_events(span: int, at_once: int = 1) -> np.ndarray:
    """What the files in ``written`` were given to write: 240 events of 320 x 240 pixels, some at a time in one row."""
    dice, n = np.random.default_rng(0), 240 // at_once
    events = np.empty(240, EVENT)
    events["t"] = np.repeat(np.sort(dice.integers(0, span, n)), at_once)
    events["y"] = np.repeat(dice.integers(0, 240, n), at_once)
    events["p"] = np.repeat(dice.integers(0, 2, n), at_once)
    if at_once == 1:
        events["x"] = np.concatenate([dice.integers(0, 320, 1) for _ in range(n)])
    else:
        rows = [dice.integers(0, 310) + np.sort(dice.choice(10, at_once, replace=False)) for _ in range(n)]
        events["x"] = np.concatenate(rows)
    return events


@pytest.mark.parametrize(
    ("name", "span", "at_once", "sensor"),
    [
        ("dv-processing-2.0.4-lz4.aedat4", 10**6, 1, (320, 240)),
        ("dv-processing-2.0.4-zstd.aedat4", 10**6, 1, (320, 240)),
        ("evutils-0.3.18-wraps.dat", 10**10, 1, (320, 240)),  # twice
        ("evutils-0.3.18-wraps.raw", 5 * 10**7, 8, (320, 240)),  # EVT 3, twice
        ("expelliarmus-1.1.12.dat", 10**6, 1, None),
        ("expelliarmus-1.1.12-evt2.raw", 10**5, 1, None),
        (
            "v2e-davis346.aedat",
            10**6,
            1,
            (346, 260),
        ),  # its writer of AEDAT 2, and a line "# AEChip: DAVIS346", which it leaves out
        ("evutils-0.3.18.csv", 10**6, 1, None),
        ("evutils-0.3.18.npz", 10**6, 1, None),
        ("evlib-0.13.2.h5", 10**6, 1, None),  # seconds, as floating-point numbers
    ],
)
def test_what_others_wrote_is_read_event_by_event(request, name, span, at_once, sensor):
    path = request.path.parent / "written" / name
    if path.suffix == ".h5":
        pytest.importorskip("h5py")
    recording = open_recording(path, Convention(time_unit="s" if path.suffix == ".h5" else None))
    assert np.array_equal(recording.events, others_events(span, at_once))
    assert (recording.sensor, recording.disordered) == (sensor, 0)


def test_packets_of_libcaer_are_read_and_y_of_aedat_3_0_counts_from_the_bottom(request, tmp_path):
    """The packets were made by libcaer's inline functions; each ends with an event that was made invalid."""
    written, path = request.path.parent / "written" / "libcaer-3.1.aedat", tmp_path / "a.aedat"
    events = others_events(10**10)  # four overflows
    events["x"] %= 128
    events["y"] %= 128
    recording = open_recording(written)
    assert np.array_equal(recording.events, events)
    assert (recording.sensor, recording.disordered) == ((128, 128), 0)
    older, end = written.read_bytes().replace(b"DAT3.1", b"DAT3.0", 1), b"#!END-HEADER\r\n"
    events["y"] = 127 - events["y"]
    for content in (older, older.replace(end, b"", 1)):  # which 3.0 need not have
        path.write_bytes(content)
        assert np.array_equal(open_recording(path).events, events)
    path.write_bytes(older.replace(b"#Source 1: DVS128", b"#Source 1: another", 1))
    with pytest.raises(
        UnreadableError, match=r"of AEDAT 3.0, in which y counts from the bottom .* a line like #Source 1"
    ):
        open_recording(path)
