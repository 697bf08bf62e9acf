"""The formats of words and packets: compared with what others read and write, wraps, damage, what is refused by name."""

import struct

import numpy as np
import pytest

from event_files import (
    some_events,
    write_aedat2,
    write_aedat3,
    write_aedat4,
    write_bs3,
    write_dat,
    write_evt2,
    write_evt3,
)
from trevsnn.data.events.recordings import EVENT, blocks, open_recording
from trevsnn.errors import UnreadableError


@pytest.mark.parametrize(
    ("name", "write", "bits"),
    [
        ("a.dat", write_dat, 32),
        ("a.aedat", write_aedat2, 32),
        ("a.aedat", lambda path, events: write_aedat2(path, events, "DAVIS346B"), 32),
        ("a.aedat", write_aedat3, 31),
        ("a.bs3", write_bs3, 24),
        ("a.raw", write_evt2, 34),
        ("a.raw", write_evt3, 24),
    ],
)
def test_a_recording_whose_counter_wraps_is_contiguous(tmp_path, name, write, bits):
    events = some_events(3000)
    events["t"] = np.sort(np.random.default_rng(1).integers(0, 2**bits * 5 // 2, len(events)))
    write(tmp_path / name, events)
    recording = open_recording(tmp_path / name)
    assert np.array_equal(recording.events, events)
    assert recording.disordered == 0


def test_events_that_come_late_after_a_wrap_belong_before_it(tmp_path):
    events = some_events(6)
    events["t"] = 2**24 + np.array([-9, 3, -5, 4, -2, 8])
    write_bs3(tmp_path / "a.bs3", events)
    recording = open_recording(tmp_path / "a.bs3")
    assert recording.events["t"].tolist() == (2**24 + np.array([-9, -5, -2, 3, 4, 8])).tolist()
    assert recording.disordered == 2
    assert np.array_equal(np.concatenate(list(blocks(tmp_path / "a.bs3"))), events)


def test_a_clock_that_was_reset_is_refused_with_both_times(tmp_path):
    events = some_events(6)
    events["t"] = [0, 10, 5_000_000, 3_999_999, 4_000_000, 6_000_000]
    write_dat(tmp_path / "a.dat", events)
    with pytest.raises(
        UnreadableError, match=r"event 4 is at 3999999 us and the one before it at 5000000 us, so its clock was"
    ):
        open_recording(tmp_path / "a.dat")
    events["t"][3] = 4_000_000  # a second
    write_dat(tmp_path / "a.dat", events)
    assert open_recording(tmp_path / "a.dat").disordered == 1


def evt3(*words: tuple[int, int]) -> bytes:
    return b"% evt 3.0\n% end\n" + np.array([kind << 12 | value for kind, value in words], "<u2").tobytes()


def test_evt3_rows_polarity_and_what_comes_before_the_first_time(tmp_path):
    (tmp_path / "a.raw").write_bytes(
        evt3(
            (0, 9), (2, 3), (8, 1), (6, 2), (5, 255), (0, 0x800 | 7), (2, 0x800 | 40), (3, 100), (4, 0b100000000101), (5, 0b10000010), (7, 1),
            (15, 3), (4, 1), (3, 0x800 | 200), (6, 1), (5, 1),
        )
    )  # fmt: skip
    recording = open_recording(tmp_path / "a.raw")
    assert recording.events.tolist() == [
        (200, 7, 4097, 1), (40, 7, 4098, 1), (100, 7, 4098, 0), (102, 7, 4098, 0), (111, 7, 4098, 0), (113, 7, 4098, 0),
        (119, 7, 4098, 0), (120, 7, 4098, 0),
    ]  # fmt: skip
    assert recording.disordered == 7


def test_evt2_leaves_out_what_comes_before_the_first_time(tmp_path):
    words = [1 << 28 | 5 << 11 | 6, 8 << 28 | 2, 63 << 22 | 2047 << 11 | 9, 14 << 28, 1 << 28 | 1 << 22]
    (tmp_path / "a.raw").write_bytes(b"% format EVT2;height=720;width=1280\n% end\n" + np.array(words, "<u4").tobytes())
    recording = open_recording(tmp_path / "a.raw")
    assert recording.events.tolist() == [(0, 0, 129, 1), (2047, 9, 191, 0)]
    assert recording.sensor == (1280, 720)


def test_davis_addresses_are_those_of_jaer(tmp_path):
    """Bit 31 marks samples, bit 10 signals; x and y count from the lower right."""
    words = [
        (10 << 22 | 3 << 12 | 1 << 11, 5),
        (1 << 31 | 7 << 12, 6),
        (1 << 10, 7),
        (179 << 22 | 239 << 12, 2**32 - 1),
        (0, 4),
    ]
    head = b"#!AER-DAT2.0\r\n# HardwareInterface: x\r\n# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n"
    (tmp_path / "a.aedat").write_bytes(
        head + b"#End Of ASCII Header\r\n" + struct.pack(">10I", *np.ravel(words).tolist())
    )
    recording = open_recording(tmp_path / "a.aedat")
    assert recording.events.tolist() == [(236, 169, 5, 1), (0, 0, 2**32 - 1, 0), (239, 179, 2**32 + 4, 0)]
    assert recording.sensor == (240, 180)


def test_a_davis_address_beyond_its_chip_is_a_stray_event(tmp_path):
    """So that one of them is dropped, or refused by its number, and not the recording."""
    words = (10 << 22 | 3 << 12, 5, 252 << 22 | 200 << 12, 6)
    (tmp_path / "a.aedat").write_bytes(b"#!AER-DAT2.0\r\n# AEChip: Davis128\r\n" + struct.pack(">4I", *words))
    recording = open_recording(tmp_path / "a.aedat")
    assert recording.events.tolist() == [(124, 117, 5, 0), (-73, -125, 6, 0)]
    assert recording.sensor == (128, 128)


def test_an_aedat2_header_ends_where_its_text_ends(tmp_path):
    """The first word begins with #, too: y = 71 of a DAVIS."""
    events = some_events(3, (346, 260))
    events["y"] = 259 - 141
    write_aedat2(tmp_path / "a.aedat", events, "DAVIS346")
    assert b"DAVIS346\r\n#" in (tmp_path / "a.aedat").read_bytes()
    assert np.array_equal(open_recording(tmp_path / "a.aedat").events, events)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"1234567", "it ends within an event, 2 of 5 bytes into it"),
        ("a.bin", b"", "holds no events"),
        ("a.bs3", b"1234567\0", "event 1 is of channel 52, where 0 and 1 are the polarities"),
        ("a.bs3", b"123\0" * 3, "it ends within an event, 5 of 7 bytes into it"),
        ("a.aedat", b"nothing of the kind", "it does not begin with #!AER-DAT"),
        ("a.aedat", b"#!AER-DAT4.0\r\n", "it is of version 4; 2.0, 3.0 and 3.1 end in .aedat, 4 in .aedat4"),
        ("a.aedat", b"#!AER-DAT2.0\r\n\0\0\0\0\0", "it ends within an event, 5 of 8 bytes into it"),
        ("a.aedat", b"#!AER-DAT2.0\r\n" + bytes([0, 1, 0, 0] * 2), "word 0 has the address 0x10000, beyond those of a DVS128, and its header"),
        ("a.aedat", b"#!AER-DAT2.0\r\n# AEChip: ch.unizh.DVS640\r\n" + bytes(8), "its chip is ch.unizh.DVS640; of AEDAT 2 those of"),
        ("a.aedat", b"#!AER-DAT2.0\r\n# HardwareInterface: DAVIS FX3\r\n" + bytes(8), "of a DAVIS the size must be known"),
        ("a.aedat", b"#!AER-DAT3.1\r\nnothing", "its header has no end"),
        ("a.aedat", b"#!AER-DAT3.1\r\n#!END-HEADER\r\n1234", "it ends within a packet"),
        ("a.aedat", b"#!AER-DAT3.1\r\n#Format: SerializedTS\r\n#!END-HEADER\r\n1234", "its packets are written as SerializedTS, and RAW"),
        ("a.aedat4", b"#!AER-DAT3.1\r\n", "it does not begin with #!AER-DAT4.0"),
        ("a.aedat4", b"#!AER-DAT4.0\r\n\xff\xff\xff\xff", "it has a header of 4294967295 bytes"),
        ("a.dat", b"% Version 1\n\0\x08", "it is no DAT file of version 2, but 1"),
        ("a.dat", b"% Version 2\n\x0e\x08", "it holds events of kind 14 and 8 bytes; pixels are kind 0 or 12, of 8 bytes"),
        ("a.dat", b"% Version 2\n\0\x08" + bytes(7) + b"\x70", "event 1 is of polarity 7; there are 0 and 1"),
        ("a.dat", b"% Version 2\n", "its header has no end"),
        ("a.raw", b"% Date 2020\n% end\n", "its header does not say which version of EVT it is of"),
        ("a.raw", b"% evt 2.1\n% end\n" + bytes(8), "it is of EVT 2.1; 2.0 and 3.0 are read"),
        ("a.raw", b"% format EVT21;height=720;width=1280\n% end\n" + bytes(8), "it is of EVT 2.1; 2.0 and 3.0 are read"),
        ("a.raw", b"% format EVT4\n% end\n", "it is of EVT 4.0; 2.0 and 3.0 are read"),
        ("a.raw", b"% evt 2.0\n% endianness big\n% end\n", "its words are big-endian"),
        ("a.raw", b"% evt 2.0\n% end\n" + bytes([0, 0, 0, 0x20]), "it has words of type 2, which EVT 2.0 does not have"),
        ("a.raw", evt3((9, 1)), "it has words of type 9, which EVT 3.0 does not have"),
        ("a.raw", evt3((8, 0), (0, 1), (3, 2040), (4, 4095)), "it has an event at x = 2051, and EVT 3.0 goes up to 2047"),
        ("a.raw", evt3((8, 0)) + b"\0", "it ends within a word, 1 of 2 bytes into it"),
        ("a.raw", b"% " + b"a" * (5 << 20), "its header does not end within 4 MiB"),
    ],
)  # fmt: skip
def test_what_is_not_of_a_format_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableError) as raised:
        open_recording(tmp_path / name)
    assert str(raised.value).startswith(f"{tmp_path / name} ")
    assert message in str(raised.value)


def packet(
    kind: int = 1, size: int = 8, offset: int = 4, overflows: int = 0, count: int = 1, body: bytes = bytes(8)
) -> bytes:
    header = struct.pack("<hhiiiiii", kind, 1, size, offset, overflows, count, count, count)
    return b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + header + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packet(count=2**31 - 1), "it ends within a packet"),
        (packet(size=-8), "it has a packet of 1 events of -8 bytes after 0 overflows"),
        (packet(overflows=-1), "it has a packet of 1 events of 8 bytes after -1 overflows"),
        (
            packet(size=16, body=bytes(16)),
            "it has polarity events of 16 bytes with the time at byte 4, not of 8 with it at 4",
        ),
        (packet(kind=-32767), "it has compressed packets"),
        (packet(body=b"\1\0\0\0\xff\xff\xff\xff"), "it has an event at -1 us, before its packet's beginning"),
        (packet(kind=2, size=2**31 - 1, count=2**31 - 1), "it ends within a packet"),
    ],
)
def test_packets_of_aedat3_that_cannot_be_are_named(tmp_path, content, message):
    (tmp_path / "a.aedat").write_bytes(content)
    with pytest.raises(UnreadableError, match=message):
        open_recording(tmp_path / "a.aedat")


def test_aedat4_that_is_cut_off_or_of_two_streams_or_a_bomb_is_named(tmp_path):
    lz4 = pytest.importorskip("lz4.frame")
    path = tmp_path / "a.aedat4"
    write_aedat4(path, some_events(300))
    content = path.read_bytes()
    second = content.index(b"\4\x22\x4d\x18", content.index(b"\4\x22\x4d\x18") + 4) - 8  # of three packets
    path.write_bytes(content[:second])  # as a recorder leaves it that was killed
    assert len(open_recording(path).events) == 100
    path.write_bytes(content[: second + 50])
    with pytest.raises(UnreadableError, match="it ends within a packet, or before its last one"):
        open_recording(path)
    path.write_bytes(content[:second] + b"\5" + content[second + 1 :])
    with pytest.raises(UnreadableError, match="it has events of two streams, 0 and 5: export one of them"):
        open_recording(path)
    bomb = lz4.compress(b"\0\0\0\0\0\0\0\0EVTS" + bytes(300 << 20))
    path.write_bytes(content[:second] + struct.pack("<ii", 0, len(bomb)) + bomb)
    with pytest.raises(UnreadableError, match="it has a packet that unpacks to more than 64 MiB"):
        open_recording(path)


def test_aedat4_of_far_more_events_than_bytes_is_named(tmp_path):
    write_aedat4(tmp_path / "a.aedat4", np.zeros(1_100_000, EVENT), compression=3, size=1_100_000)
    with pytest.raises(UnreadableError, match=r"it holds 1100000 events in \d{4} bytes, which no recording does"):
        open_recording(tmp_path / "a.aedat4")


def test_aedat4_that_says_where_it_ends_must_reach_there(request, tmp_path):
    content = (request.path.parent / "written" / "dv-processing-2.0.4-lz4.aedat4").read_bytes()
    for part in (1, 200, len(content) // 2):
        (tmp_path / "a.aedat4").write_bytes(content[:-part])
        if part == 1:  # of the table behind the packets, which is not needed
            assert len(open_recording(tmp_path / "a.aedat4").events) == 240
        else:
            with pytest.raises(UnreadableError, match=r"a.aedat4 cannot be read as a recording|holds no events"):
                open_recording(tmp_path / "a.aedat4")
