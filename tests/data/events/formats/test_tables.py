"""Plain tables: ``.csv`` and ``.npz``, units of time, polarities, and numbers that cannot be."""

import io
import re
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_files import some_events
from trevsnn.data.convention import Convention
from trevsnn.data.events.formats import npz
from trevsnn.data.events.formats.table import convert
from trevsnn.data.events.recordings import open_recording, read_recording
from trevsnn.errors import UnreadableError

COLUMNS = {"x": [3, 4], "y": [5, 6], "t": [7, 8], "p": [0, 1]}


def table(**columns: object) -> dict[str, np.ndarray]:
    return {name: np.asarray(column) for name, column in {**COLUMNS, **columns}.items()}


@given(
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
    times=st.lists(st.integers(-(10**12), 10**12), min_size=2, max_size=2),
    floats=st.booleans(),
)
def test_times_of_any_unit_are_microseconds_rounded(unit, times, floats):
    ticks = {"s": 10**6, "ms": 10**3, "us": 1, "ns": 1 / 1000}[unit]
    column = np.array([time / 8 for time in times] if floats else times)
    events = convert(table(t=column), Convention(time_unit=unit), None, 0)
    for time, read in zip(column.tolist(), events["t"].tolist(), strict=True):
        assert abs(read - time * ticks) <= (0.5 if abs(time * ticks) < 2**50 else 1024)
    if not floats and unit != "ns":
        assert events["t"].tolist() == [time * ticks for time in times]


def test_whole_times_without_a_unit_are_microseconds_and_a_files_own_unit_counts_before_a_stated_one():
    assert convert(table(), Convention(), None, 0)["t"].tolist() == [7, 8]
    assert convert(table(t=[0.5, 1.25]), Convention(time_unit="s"), "ms", 0)["t"].tolist() == [500, 1250]
    assert convert(table(t=[1499, 1500]), Convention(time_unit="ns"), None, 0)["t"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([False, True], [0, 1]),
        (np.array([0, 1], np.int8), [0, 1]),
        ([0.0, 1.0], [0, 1]),
        (np.array([1, 0], np.uint64), [1, 0]),
    ],
)
def test_polarities_of_any_type(values, read):
    assert convert(table(p=values), Convention(), None, 0)["p"].tolist() == read


def test_signed_polarities_are_read_where_they_are_stated():
    assert convert(table(p=[-1, 1]), Convention(polarity="signed"), None, 0)["p"].tolist() == [0, 1]
    assert convert(table(p=[-1.0, 1.0]), Convention(polarity="signed"), None, 0)["p"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("columns", "convention", "message"),
    [
        ({"p": [1, -1]}, {}, "event 102 has p = -1, and the polarities are 0 (darker) and 1 (brighter) where nothing else is said"),
        ({"p": [1, -1]}, {"polarity": "binary"}, "if they are -1 and 1, state --polarity signed, or --data.polarity signed"),
        ({"p": [1, 0]}, {"polarity": "signed"}, "event 102 has p = 0, and with data.polarity signed the polarities are -1 and 1"),
        ({"p": [0, 2]}, {}, "event 102 has p = 2, and the polarities are 0 (darker) and 1 (brighter)"),
        ({"p": [-1, 2]}, {}, "event 101 has p = -1, and the polarities"),
        ({"p": [0.5, 1]}, {}, "event 101 has p = 0.5, which is no whole number"),
        ({"x": [3, 2**32]}, {}, "event 102 has x = 4294967296, beyond 2147483647, the largest that is read"),
        ({"y": [-(2**31) - 1, 1]}, {}, "event 101 has y = -2147483649, beyond 2147483647"),
        ({"x": np.array([3, 2**31], np.float32)}, {}, "event 102 has x = 2147483648.0, beyond"),
        ({"x": np.array([3, 2**64 - 1], np.uint64)}, {}, "event 102 has x = 18446744073709551615, beyond"),
        ({"x": [3.5, 4]}, {}, "event 101 has x = 3.5, which is no whole number"),
        ({"x": [3, np.nan]}, {}, "event 102 has x = nan, which is no whole number"),
        ({"x": ["3", "4"]}, {}, "its column x is of type <U1, not of numbers"),
        ({"x": [1j, 2]}, {}, "its column x is of type complex128, not of numbers"),
        ({"x": [True, False]}, {}, "its column x is of type bool, not of numbers"),
        ({"t": [0.1, 0.2]}, {}, "nothing says of which unit: state it by --time_unit, or --data.time_unit (s, ms, us or ns)"),
        ({"t": [0.1, np.nan]}, {"time_unit": "s"}, "event 102 has t = nan, which is no time"),
        ({"t": [np.inf, 0.1]}, {}, "event 101 has t = inf, which is no time"),
        ({"t": [0, 1e300]}, {"time_unit": "s"}, "event 102 has t = 1e+300, beyond what 64 bits of microseconds hold"),
        ({"t": [0, 2**62]}, {"time_unit": "s"}, "event 102 has t = 4611686018427387904, beyond what 64 bits"),
        ({"t": np.array([0, 2**63], np.uint64)}, {}, "event 102 has t = 9223372036854775808, beyond what 64 bits"),
        ({"y": [1]}, {}, "its columns are of different length: x has 2, y has 1, t has 2, p has 2"),
        ({"y": [[1, 2], [3, 4]]}, {}, "its column y is of shape (2, 2), not of one dimension"),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused_with_the_first_such_event(columns, convention, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(table(**columns), Convention(**convention), None, 100)


@pytest.mark.parametrize(
    ("text", "convention"),
    [
        ("x,y,t,p\n3,5,7,0\n4,6,8,1\n", {}),
        ('\ufeff"t";"polarity";"x";"y"\r\n7;false;3;5\r\n8;True;4;6\r\n', {}),
        ("# of a camera\n\nTimestamp x y on\n7 3 5 0\n# a remark\n8 4 6 1  # and one\n", {}),
        ("# x y t p\n3 5 7 0\n4 6 8 1\n", {}),  # as numpy.savetxt has it
        ('"note","x","y","t","p"\n"1,2,3",3,5,7,0\n"# ""4""","4","6","8","1"\n', {}),  # what is quoted is one field
        ("label\tx\ty\tt_ms\tpol\ncat\t3\t5\t0.007\t0\ndog\t4\t6\t0.008\t1\n", {}),
        ("xs,ys,ts,ps\n3.0,5,7e-6,-1\n4.0,6,8e-6,1\n", {"time_unit": "s", "polarity": "signed"}),
        ("x,y,t,p\n3,5,7000,0.0\n4,6,8000,1.0\n", {"time_unit": "ns"}),
    ],
)
def test_csv_in_many_hands(tmp_path, text, convention):
    (tmp_path / "a.csv").write_text(text, "utf-8")
    assert read_recording(tmp_path / "a.csv", Convention(**convention)).tolist() == [(3, 5, 7, 0), (4, 6, 8, 1)]


def test_csv_as_numpy_and_csv_write_it_keeps_every_digit(tmp_path):
    events = some_events(5000)
    events["t"] += 2**62
    array = np.stack([events[name].astype(np.int64) for name in "ptxy"], 1)
    np.savetxt(tmp_path / "a.csv", array, "%d", ",", header="p,t,x,y")
    assert np.array_equal(read_recording(tmp_path / "a.csv"), events)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3,5,7,0\n4,6,8,1\n", "its first line does not name the columns: put x,y,t,p there"),
        ("x,y,t\n1,2,3\n", "its columns are x, y, t, and x, y, t and p are needed"),
        ("x,y,t,ts,p\n1,2,3,4,1\n", "its columns t and ts may both be t"),
        ("x,y,t,p\n1,2,3,1\n1,2,three,1\n", "event 2 has no number t in its line '1,2,three,1'"),
        ("x,y,t,p\n1,2,3,1\n1,2\n", "event 2 has no number t in its line '1,2'"),
        ("x,y,t,p\n1,2,3,1\n1,2,4,1", "its last line does not end: it may have been cut off; if not, end the line"),
        ("x,y,t,p\n1,2,3,1\n1.5,2,4,1\n", "event 2 has x = 1.5, which is no whole number"),
        ("x,y,t,p\n1,2,nan,1\n", "event 1 has t = nan, which is no time"),
        ("x,y,t,p\n1,2,0x10,1\n", "event 1 has no number t"),
        ("x,y,t,p\n" + "1" * 1001 + ",2,3,1\n", "it has a line of more than 1000 bytes"),
        ("x,y,t,p\n" + "1" * 10_000_000, "it has a line of more than 1000 bytes"),
        ("x" * 1001 + "\n", "it has a line of more than 1000 bytes"),
        ('x,y,t,p,note\n1,2,3,1,"a\n1,2,4,1,b"\n', "its line '1,2,3,1,\"a' has a quotation mark too many"),
        ('x,y,t,p,note\n1,2,3,1,a\n1,"2",t,1,b\n', "event 2 has no number t in its line '1,\"2\",t,1,b'"),
        ("x,y,t,p\n", "holds no events"),
        ("# nothing\n", "holds no events"),
    ],
)
def test_csv_that_is_no_table_is_named(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UnreadableError) as raised:
        read_recording(tmp_path / "a.csv")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("times", "unit", "read"),
    [
        (np.array([2**32 - 10, 2**32 - 1, 5, 2], np.uint32), "us", [2**32 - 10, 2**32 - 1, 2**32 + 2, 2**32 + 5]),
        (np.array([2**31 - 10, 2**31 - 1, -(2**31), -5], np.int32), "us", [2**31 - 10, 2**31 - 1, 2**31, 2**32 - 5]),
        (np.array([-3, 2, 4, 7], np.int32), "us", [-3, 2, 4, 7]),
        (np.array([2**32 - 1000, 1000, 2**31 + 2000, 1000], np.uint32), "ns", [4294966, 4294968, 6442453, 8589936]),
    ],
)
def test_times_of_32_bits_that_wrap_are_contiguous(tmp_path, monkeypatch, times, unit, read):
    """In a second round, and with each event in a piece of its own."""
    for length in (4, 1):
        monkeypatch.setattr(npz, "SLICE", length)
        zeros = np.zeros(4, np.int8)
        np.savez(tmp_path / "a.npz", x=zeros, y=zeros, t=times, p=zeros, unit=unit)
        assert read_recording(tmp_path / "a.npz")["t"].tolist() == read


def test_whole_times_of_64_bits_do_not_wrap(tmp_path):
    np.savez(tmp_path / "a.npz", **{**COLUMNS, "t": np.array([2**32 - 10, 5])})
    with pytest.raises(UnreadableError, match="event 2 is at 5 us and the one before it at 4294967286 us"):
        read_recording(tmp_path / "a.npz")


def test_npz_layouts(tmp_path):
    events = some_events(300)
    matrix = np.stack([events[name].astype(np.int64) for name in "txyp"], 1)
    for number, arrays in enumerate((
        {name: events[name] for name in "xytp"},
        {"xs": events["x"], "ys": events["y"], "timestamps": events["t"] * 1000, "polarity": events["p"] > 0, "unit": "ns"},
        {"x": events["x"], "y": events["y"], "t_ms": events["t"] / 1000, "p": events["p"]},
        {"events": events},
        {"events": matrix, "columns": ["t", "x", "y", "p"]},
        {"events": np.asfortranarray(matrix.astype(np.float64)), "columns": ["t", "x", "y", "p"], "time_unit": "microseconds"},
    )):  # fmt: skip
        for save in (np.savez, np.savez_compressed):
            save(tmp_path / f"{number}.npz", **arrays)
            assert np.array_equal(read_recording(tmp_path / f"{number}.npz"), events), number


def test_npz_that_is_no_table_a_pickle_or_a_bomb_is_named(tmp_path):
    path = tmp_path / "a.npz"

    def refused(message, **arrays):
        if arrays:
            np.savez_compressed(path, **arrays)
        with pytest.raises(UnreadableError) as raised:
            open_recording(path)
        assert message in str(raised.value)

    refused("it holds frames, and arrays x, y, t and p or events are needed", frames=np.zeros(3))
    refused("its array events is of shape (5, 4) and columns without names", events=np.zeros((5, 4)))
    refused("its times are in 'fortnights'; known are s, ms, us, ns", **COLUMNS, unit="fortnights")
    np.savez(path, **COLUMNS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x", b"")
    refused("it has two arrays of one name: leave one of them out")
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(1100):
            archive.writestr(f"{number:0999}", b"")
    refused("its directory takes 1149500 bytes, and up to 1048576 are read: keep the arrays of the events")
    refused("is of type object, which is not read", **{**COLUMNS, "p": np.array([{}, 1], object)})
    zeros = np.zeros(40 << 20, np.int8)
    refused("it holds 41943040 events in ", x=zeros, y=zeros, t=zeros, p=zeros)
    wide = np.zeros(300_000, [(name, "i8") for name in "xytp"] + [("rest", "V224")])
    refused("bytes unpack to 76800000, which those of no recording do", events=wide)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "xytp":
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (2**40,)})
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(100))
    refused("it holds 1099511627776 events, and up to 268435456 are read")
    with zipfile.ZipFile(path, "w") as archive:
        for name in "xytp":
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (50,)})
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(100))
    refused("its array x.npy is not as long as its header says")
