"""HDF5 in its usual layouts, as h5py writes them; what lies outside the file, and what was made to fill the memory."""

import zlib

import numpy as np
import pytest

from event_files import some_events, write_hdf5
from trevsnn.data.convention import Convention
from trevsnn.data.events.formats import hdf5, hdf5_text
from trevsnn.data.events.recordings import open_recording, read_recording
from trevsnn.errors import UnreadableError

h5py = pytest.importorskip("h5py")
EVENTS = some_events(500)
MATRIX = np.stack([EVENTS[name].astype(np.uint32) for name in "txyp"], 1)


def write(path, **items):
    """Datasets by their path, with __ for a slash."""
    with h5py.File(path, "w") as file:
        for name, item in items.items():
            file[name.replace("__", "/")] = item


def refused(path, message, convention=Convention()):  # noqa: B008
    with pytest.raises(UnreadableError) as raised:
        open_recording(path, convention)
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"{path} cannot be read as a recording")


def test_datasets_of_any_usual_names_and_depth(tmp_path):
    path = tmp_path / "a.h5"
    for group in ("/", "events", "davis/left/events"):
        for options in ({}, {"compression": "gzip", "shuffle": True, "chunks": (100,)}):
            write_hdf5(path, EVENTS, group, **options)
            assert np.array_equal(read_recording(path), EVENTS)
    write(path, events__xs=EVENTS["x"], events__ys=EVENTS["y"], events__ts=EVENTS["t"], events__ps=EVENTS["p"] > 0)
    assert np.array_equal(read_recording(path), EVENTS)  # rpg_e2vid, esim
    ms_to_idx = np.arange(9)
    write(path, **{f"events__{n}": EVENTS[n] for n in "xytp"}, t_offset=np.int64(10**12), ms_to_idx=ms_to_idx)
    assert np.array_equal(read_recording(path)["t"], EVENTS["t"] + 10**12)  # DSEC


def test_compound_types_and_v2es_matrix(tmp_path):
    path = tmp_path / "a.hdf5"
    prophesee = np.empty(len(EVENTS), [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    for name in "xytp":
        prophesee[name] = EVENTS[name]
    triggers = np.zeros(3, [("p", "<i2"), ("t", "<i8"), ("id", "<i2")])
    with h5py.File(path, "w") as file:
        file.create_dataset("CD/events", data=prophesee, compression="gzip")
        file["EXT_TRIGGER/events"] = triggers
        file.attrs["geometry"] = np.bytes_("1280x720")
    recording = open_recording(path)
    assert np.array_equal(recording.events, EVENTS)
    assert recording.sensor == (1280, 720)
    with h5py.File(path, "w") as file:
        file.create_dataset("events", data=MATRIX, maxshape=(None, 4), chunks=True, compression="gzip")
    assert np.array_equal(read_recording(path), EVENTS)
    with h5py.File(path, "w") as file:
        file["events"] = MATRIX[:, [1, 2, 0, 3]] // [1, 1, 10, 1]
    refused(path, "its dataset events does not name its columns, and read as t, x, y, p it is not in the order of time")
    with h5py.File(path, "a") as file:
        file["events"].attrs["columns"] = np.bytes_("x, y, t, p")
    assert np.array_equal(read_recording(path)["t"], EVENTS["t"] // 10)
    with h5py.File(path, "w") as file:
        file["events"] = MATRIX / 2
    refused(path, "does not name its columns: give it an attribute columns")


def test_units_that_the_file_states_in_texts_of_either_kind(tmp_path):
    path = tmp_path / "a.h5"
    for unit, place in ((np.bytes_("ms"), "t"), ("milliseconds", "t"), (np.bytes_("ms"), "/")):
        write(path, x=EVENTS["x"], y=EVENTS["y"], t=EVENTS["t"] / 1000, p=EVENTS["p"])
        refused(path, "its times are floating-point numbers, and nothing says of which unit: state it by --time_unit")
        with h5py.File(path, "a") as file:
            file[place].attrs["units"] = unit
        assert np.array_equal(read_recording(path, Convention(time_unit="s")), EVENTS)
    with h5py.File(path, "a") as file:
        file["t"].attrs["unit"] = np.bytes_("fortnights")
    refused(path, "its times are in 'fortnights'; known are s, ms, us, ns")


def test_a_text_that_ends_the_process_that_reads_it_is_a_sentence(tmp_path, monkeypatch):
    """As the HDF5 library does with texts of variable length in damaged files."""
    path = tmp_path / "a.h5"
    write_hdf5(path, EVENTS)
    with h5py.File(path, "a") as file:
        file["t"].attrs["unit"] = "us"
    assert np.array_equal(read_recording(path), EVENTS)
    for script in ("import os; os.kill(os.getpid(), 11)", "while True: pass"):
        monkeypatch.setattr(hdf5_text, "SCRIPT", script)
        monkeypatch.setattr(hdf5_text, "MOST_SECONDS", 1)
        refused(path, "its attribute unit of /t cannot be read")


def test_an_unknown_layout_and_two_places_are_named(tmp_path):
    path = tmp_path / "a.h5"
    write(path, x=[1], frames__first=np.zeros(3))
    refused(path, "it has no datasets x, y, t and p, in no layout that is known; it holds x, frames/first")
    write(path, **{f"{side}__{n}": EVENTS[n] for n in "xytp" for side in ("left", "right")})
    refused(path, "it has events in left/, right/: keep one of them")
    write(path, **{n: EVENTS[n] for n in "xytp"}, ts=EVENTS["t"])
    refused(path, "its columns t and ts may both be t")
    write(path, **{f"group{i}": 0 for i in range(1001)})
    refused(path, "it has more than 1000 groups and datasets")


def test_values_that_cannot_be_are_named_wherever_they_stand(tmp_path):
    path = tmp_path / "a.h5"
    n = 1_200_000  # in the second slice
    columns = {"x": np.zeros(n, "i4"), "y": np.zeros(n, "i2"), "t": np.arange(n), "p": np.zeros(n, "i1")}
    columns["x"] = columns["x"].astype("u4")
    columns["x"][1_100_000] = 2**31
    write(path, **columns)
    refused(path, "event 1100001 has x = 2147483648, beyond 2147483647")
    for name, value, message in (
        ("p", EVENTS["p"] + 1, "has p = 2, and the polarities"),
        ("t", np.array(["a"] * 500, h5py.string_dtype()), "its dataset /t is of type object"),
        ("y", EVENTS["y"][:, None], "its column y is of shape (500, 1), not of one dimension"),
        ("y", EVENTS["y"][:-1], "its columns are of different length: x has 500, y has 499"),
    ):
        write(path, **{**{n: EVENTS[n] for n in "xytp"}, name: value})
        refused(path, message)


def test_what_lies_outside_the_file_is_not_read(tmp_path):
    path = tmp_path / "a.h5"
    rest = {n: EVENTS[n] for n in "xyt"}
    (tmp_path / "secret").write_bytes(bytes(500))
    write(path, **rest)
    with h5py.File(path, "a") as file:
        file.create_dataset("p", (500,), "u1", external=[(str(tmp_path / "secret"), 0, 500)])
    refused(path, "its dataset /p lies in other files, and these are not read")
    write(tmp_path / "b.h5", p=EVENTS["p"])
    for link in (h5py.ExternalLink("b.h5", "p"), h5py.SoftLink("/q")):
        write(path, **rest, q=EVENTS["p"], p=link)
        refused(path, "its p is a link, to another place or file, and links are not followed")
    write(path, **rest)
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout((500,), "u1")
        layout[:] = h5py.VirtualSource(str(tmp_path / "b.h5"), "p", (500,))
        file.create_virtual_dataset("p", layout)
    refused(path, "its dataset /p lies in other files, and these are not read")


def test_what_claims_more_than_it_stores_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.h5"
    for shape, message in (
        ((40 << 20,), "it holds 41943040 events in "),
        ((2**40,), "it holds 1099511627776 events, and up to"),
    ):
        with h5py.File(path, "w") as file:
            for name in "xytp":
                dataset = file.create_dataset(name, shape, "i1", chunks=(1 << 20,), compression="gzip")
                if shape[0] < 2**30:
                    dataset[:] = 0
        refused(path, message if shape[0] < 2**30 else "its dataset /x was not written to its end")
    with h5py.File(path, "w") as file:
        for name in "xytp":
            file.create_dataset(name, (10,), "i8", chunks=(1 << 30,), maxshape=(None,), compression="gzip")
    refused(path, "its dataset /x has chunks of 8589934592 bytes")
    write_hdf5(path, EVENTS)
    with h5py.File(path, "a") as file:
        del file["t"]
        file.create_dataset("t", (500,), "i8", chunks=(100,))[:300] = EVENTS["t"][:300]
    refused(path, "its dataset /t was not written to its end")


@pytest.mark.parametrize(
    ("options", "chunk"),
    [
        ({"compression": "gzip"}, zlib.compress(bytes(3999))),  # else what was in the memory would be read as numbers
        ({"compression": "gzip"}, zlib.compress(bytes(100 << 20))),
        ({"compression": "gzip"}, zlib.compress(bytes(4000))[:-5]),
        ({"compression": "gzip", "shuffle": True, "fletcher32": True}, zlib.compress(bytes(4000))),
        ({"compression": "lzf"}, bytes([31, *bytes(32), 255, 200, 0])),
        ({"compression": "lzf"}, bytes([0, 0, *[255, 255, 0] * 100])),
    ],
)
def test_a_chunk_that_unpacks_to_more_or_less_than_it_has_is_refused(tmp_path, options, chunk):
    write(tmp_path / "a.h5", **{n: EVENTS[n] for n in "yp"}, t=np.zeros(500, int))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.create_dataset("x", (500,), "i8", chunks=(500,), **options).id.write_direct_chunk((0,), chunk)
    refused(tmp_path / "a.h5", "its dataset /x has a chunk, from 0 on, that does not unpack to its 4000 bytes")


def test_chunks_as_h5py_packs_them_unpack_to_what_they_have(tmp_path):
    """Noise, zeros and events, whole, and with one more chunk than is full."""
    path = tmp_path / "a.h5"
    for options in ({"compression": "lzf"}, {"compression": "lzf", "shuffle": True, "fletcher32": True},
                    {"compression": "gzip", "fletcher32": True}, {"fletcher32": True}, {"shuffle": True}):  # fmt: skip
        for chunks in (500, 499, 64):
            write_hdf5(path, EVENTS, chunks=(chunks,), **options)
            assert np.array_equal(read_recording(path), EVENTS), (options, chunks)
            write_hdf5(path, np.zeros(500, EVENTS.dtype), chunks=(chunks,), **options)
            assert not read_recording(path)["t"].any()


@pytest.mark.parametrize("plugin", ["Blosc", "LZ4", "Zstd"])
def test_chunks_of_plugins_unpack_to_what_they_have(tmp_path, plugin):
    packing = dict(getattr(pytest.importorskip("hdf5plugin"), plugin)())
    path = tmp_path / "a.h5"
    write_hdf5(path, EVENTS, chunks=(64,), **packing)
    assert np.array_equal(read_recording(path), EVENTS)
    for length in (499, 501):
        write(path, **{n: EVENTS[n] for n in "ytp"})
        with h5py.File(path, "a") as file:
            other = file.create_dataset("other", data=np.arange(length), chunks=(length,), **packing)
            _, chunk = other.id.read_direct_chunk((0,))
            file.create_dataset("x", (500,), "i8", chunks=(500,), **packing).id.write_direct_chunk((0,), chunk)
        refused(path, "its dataset /x has a chunk, from 0 on, that does not unpack to its 4000 bytes")


def test_packings_that_cannot_be_looked_into_are_refused(tmp_path):
    write(tmp_path / "a.h5", **{n: EVENTS[n] for n in "ytp"})
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.create_dataset("x", data=EVENTS["x"], chunks=(500,), scaleoffset=0)
    refused(tmp_path / "a.h5", "its dataset /x is packed by scale-offset, and nothing says what its chunks unpack to")


def test_times_of_32_bits_wrap_in_a_later_slice_too(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "SLICE", 100)
    times = (EVENTS["t"] + 2**32 - 50_000) % 2**32
    assert times.min() < times[0]
    expected = EVENTS["t"] + 2**32 - 50_000
    write(tmp_path / "a.h5", **{n: EVENTS[n] for n in "xyp"}, t=times.astype(np.uint32), t_offset=7)
    assert np.array_equal(read_recording(tmp_path / "a.h5")["t"], expected + 7)
    write(tmp_path / "a.h5", events=np.stack([times, EVENTS["x"], EVENTS["y"], EVENTS["p"]], 1).astype(np.uint32))
    assert np.array_equal(read_recording(tmp_path / "a.h5")["t"], expected)


def test_codecs_that_are_not_installed_are_named(tmp_path):
    """By numbers that no library here knows."""
    path = tmp_path / "a.h5"
    for code, message in ((0x8ECF, "its dataset /p is packed by Prophesee's ECF, which no Python package brings"), (
        33333, "its dataset /p is packed by HDF5's filter 33333: pip install hdf5plugin",
    )):  # fmt: skip
        with h5py.File(path, "w") as file:
            for name in "xyt":
                file[name] = EVENTS[name]
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_chunk((500,))
            properties.set_filter(code, h5py.h5z.FLAG_OPTIONAL)
            space = h5py.h5s.create_simple((500,))
            dataset = h5py.h5d.create(file.id, b"p", h5py.h5t.NATIVE_UINT8, space, properties)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, EVENTS["p"].copy())
        refused(path, message)
