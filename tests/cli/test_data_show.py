"""``trevsnn data show``: what it prints and writes, and how it ends; ``trevsnn data list`` of gestures, and where it is refused."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import shared_data
from event_files import folder_of_recordings, some_events, write_aedat3, write_nmnist
from helpers import fails, picture
from trevsnn.cli.main import main
from trevsnn.data.events.recordings import EVENT
from trevsnn.data.events.sets import GESTURES


def test_a_recording_in_the_terminal(capsys):
    assert main(["data", "show", str(shared_data("event-format-samples", "tonic_sample_nmnist.bin"))]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:5] == [
        "tonic_sample_nmnist.bin",
        "  format      40-bit words (N-MNIST)",
        "  sensor      at least 34 x 34 pixels, by the events",
        "  duration    310.5 ms, from 654 us of the file's clock",
        "  events      4,325: 2,180 darker (50.4%), 2,145 brighter (49.6%)",
    ]
    assert "  longest gap 6.1 ms without an event, 222.9 ms after the first" in lines
    assert lines[-1].startswith("To see it: --out FOLDER")


def test_a_recording_as_json_and_its_strays(tmp_path, capsys):
    events = some_events(400)
    events["x"][7], events["y"][7] = 200, 3
    write_nmnist(tmp_path / "a.bin", events)
    assert main(["data", "show", str(tmp_path / "a.bin"), "--sensor", "34", "34", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    after = int(events["t"][7] - events["t"][0])
    assert found["outside"] == {"events": 1, "first": {"number": 8, "x": 200, "y": 3, "after_us": after}}
    assert (found["sensor"], found["sensor_from"], found["events"]) == ([34, 34], "option", 400)
    assert (found["darker"], found["brighter"]) == tuple(np.bincount(events["p"]))
    assert (sum(found["windows"]["darker"]), found["pictures"]) == (found["darker"], None)
    assert main(["data", "show", str(tmp_path / "a.bin"), "--sensor", "34", "34"]) == 0
    assert "outside     1 event; the first is number 8, at (200, 3)" in capsys.readouterr().out
    assert main(["data", "show", str(tmp_path / "a.bin"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sensor"] == [201, 34]


def test_pictures_are_written_where_asked_and_replace_nothing_unasked(tmp_path, capsys):
    write_nmnist(tmp_path / "a.bin", some_events(400))
    out = tmp_path / "new" / "folder"
    show = ["data", "show", str(tmp_path / "a.bin"), "--out", str(out)]
    assert main([*show, "--frames", "3", "--window_ms", "10", "--slow", "2", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["pictures"]
    assert sorted(p.name for p in out.iterdir()) == ["a.gif", "a.png"]
    assert (written["sheet"], written["animation"]) == (str(out / "a.png"), str(out / "a.gif"))
    with Image.open(out / "a.png") as png, Image.open(out / "a.gif") as gif:
        assert (png.format, gif.n_frames, written["frames"]) == ("PNG", 10, 10)
    assert written["shown_us"] == written["duration_us"]
    before = (out / "a.gif").read_bytes()
    fails(capsys, show[1:], 1, "a.png is there already: give another folder with --out, or --overwrite")
    assert (out / "a.gif").read_bytes() == before
    (out / "a.png").unlink()
    fails(capsys, show[1:], 1, "a.gif is there already")
    assert not (out / "a.png").exists()
    assert main([*show, "--overwrite"]) == 0
    assert (out / "a.gif").read_bytes() != before
    assert "a.gif, 4 frames" in capsys.readouterr().out


def test_a_link_in_the_place_of_a_picture_is_not_written_through(tmp_path):
    write_nmnist(tmp_path / "a.bin", some_events(40))
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a.png").symlink_to(tmp_path / "precious")
    show = ["data", "show", str(tmp_path / "a.bin"), "--out", str(tmp_path), "--frames", "1"]
    assert main(show) == 1
    assert main([*show, "--overwrite"]) == 0
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "a.png").is_symlink()


def test_a_long_recording_is_animated_from_its_beginning_and_it_is_said(tmp_path, capsys):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "long.h5", "w") as file:
        for name, values in (("x", [0, 1]), ("y", [0, 1]), ("p", [0, 1]), ("t", [0, 20_000_000])):
            file[name] = values
    show = ["data", "show", str(tmp_path / "long.h5"), "--out", str(tmp_path), "--overwrite", "--frames", "1"]
    assert main(show) == 0
    assert "300 frames, of the first 9.9 s of 20 s; --window_ms 67 shows all" in capsys.readouterr().out
    assert main([*show, "--window_ms", "67"]) == 0
    assert "299 frames\n" in capsys.readouterr().out


NAMES = ["[b]$x_{1}$", "-x", "a\tb\nc", "a\x1b[31mb", os.fsdecode(b"caf\xe9"), "\u4e2d"]


def test_names_of_recordings_are_printed_letter_by_letter(tmp_path, capsys):
    """And drawn: of files, and of the classes of a set."""
    for name in NAMES:
        file = tmp_path / "data" / name / f"{name}.bin"
        write_nmnist(file, some_events(40))
        assert main(["data", "show", str(file)]) == 0
        text = capsys.readouterr().out
        spelled = name.encode("unicode_escape").decode() if name.isascii() or name[-1] == "\udce9" else name
        assert text.startswith(f"{spelled}.bin\n  format ")
    out = tmp_path / "out"
    assert main(["data", "show", str(tmp_path / "data"), "--workers", "0", "--out", str(out), "--frames", "1"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "[b]$x_{1}$" in text
    assert main(["data", "show", str(file), "--out", str(out), "--frames", "1"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["data.gif", "data.png", "\u4e2d.gif", "\u4e2d.png"]


def test_a_set_of_recordings(tmp_path, capsys):
    folder_of_recordings(tmp_path / "set", 3, ("train", "test"))
    (tmp_path / "set" / "test" / "dog" / "broken.bin").write_bytes(b"123")
    out = tmp_path / "out"
    show = ["data", "show", str(tmp_path / "set"), "--workers", "0", "--out", str(out), "--frames", "1"]
    assert main(show) == 0
    text = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "34 x" in line]
    assert [row[:4] for row in rows] == [
        ["train", "cat", "3", "300"], ["train", "dog", "3", "300"], ["test", "cat", "3", "300"], ["test", "dog", "4", "300"],
    ]  # fmt: skip
    assert rows[0][-1] == "34 x 34"
    assert rows[1][-1] == "34 x 17"
    assert "1 cannot be read and are left out of the medians:\n" in text
    assert "broken.bin cannot be read as a recording (it ends within an event" in text
    assert sorted(p.name for p in out.iterdir()) == ["set.gif", "set.png"]
    assert main([*show, "--overwrite", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(r["part"], r["class"], r["recordings"], r["unreadable"]) for r in found["rows"]][3] == (
        "test",
        "dog",
        4,
        1,
    )
    assert list(found["unreadable"]) == ["test/dog/broken.bin"]


def gestures(root: Path) -> None:
    """Twelve people with a recording each, of three trials."""
    names = [f"user{i:02}_led.aedat" for i in range(1, 13)]
    for name in names:
        write_aedat3(root / name, some_events(300, (128, 128)))
        rows = [f"{c},{30_000 * c},{30_000 * c + 20_000}" for c in (1, 2, 3)]
        (root / f"{Path(name).stem}_labels.csv").write_text("\n".join(["class,startTime_usec,endTime_usec", *rows]))
    (root / "trials_to_train.txt").write_text("\n".join(names[:10]))
    (root / "trials_to_test.txt").write_text("\n".join(names[10:]))


def test_trials_of_gestures_are_shown_and_listed(tmp_path, capsys):
    gestures(tmp_path)
    assert main(["data", "show", str(tmp_path), "--workers", "0", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(r["part"], r["class"], r["recordings"]) for r in rows] == [
        (part, name, count) for part, count in (("train", 9), ("val", 1), ("test", 2)) for name in GESTURES[:3]
    ]
    assert all(r["duration_us"] < 20_000 for r in rows)
    assert main(["data", "list", str(tmp_path), "--split", "test"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}/user11_led.aedat@30000-50000\t{GESTURES[0]}"
    assert len(lines) == 6


def test_the_rate_over_time(tmp_path, monkeypatch):
    """Bars of eighths, and where the terminal has ASCII alone of halves; tables have no other letters then, too."""
    folder_of_recordings(tmp_path / "set", 3)
    events = np.zeros(100, EVENT)  # in 60 us; 80 in the first, 10 in the 21st, 9 in the next, 1 in the last
    events["t"] = np.repeat([0, 20, 21, 59], [80, 10, 9, 1])
    write_nmnist(tmp_path / "a.bin", events)
    shown = {}
    for encoding in ("utf-8", "ascii"):
        for path in (tmp_path / "set", tmp_path / "a.bin"):
            raw = io.BytesIO()
            monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
            assert main(["data", "show", str(path), "--workers", "0"]) == 0
            sys.stdout.flush()
            shown[encoding, path.name] = raw.getvalue().decode(encoding).splitlines()
    assert any("34 x 34" in line for line in shown["ascii", "set"])
    for encoding, full, bars in (("utf-8", "█", "▄▄▁"), ("ascii", "#", "...")):
        lines = shown[encoding, "a.bin"]
        start = lines.index("  events a second")
        assert lines[start + 1] == f"        80 M |{full}"
        assert lines[start + 2 : start + 4] == [f"             |{full}"] * 2
        assert lines[start + 4] == f"             |{full}{' ' * 19}{bars[:2]}{' ' * 37}{bars[2]}"
        assert lines[start + 5 : start + 7] == ["           0 +" + 60 * "-", f"{'':13}0{'59 us':>59}"]


WRONG = [
    (["show", "MISSING.bin"], 1, "MISSING.bin does not exist"),
    (["show", "x.txt"], 1, "no recordings end in .txt"),
    (["show", "cut.bin"], 1, "it ends within an event"),
    (["show", "."], 1, "holds pictures: trevsnn data check looks at these"),
    (["show", "empty"], 1, "holds no pictures, recordings or shards"),
    (["show", "good.bin", "--out", "x.txt"], 1, "x.txt"),
    (["show", "good.bin", "--frames", "0"], 2, "frames"),
    (["show", "good.bin", "--frames", "65"], 2, "64 at most are drawn"),
    (["show", "good.bin", "--window_ms", "5"], 2, "would be shown for 5 ms"),
    (["show", "good.bin", "--slow", "inf"], 2, "would be shown for inf ms"),
    (["show", "good.bin", "--sensor", "34"], 2, "sensor"),
    (["show", "good.bin", "--sensor", "34", "0"], 2, "sensor"),
    (["list", "MISSING"], 1, "MISSING is no folder"),
    (["list", "empty"], 1, "holds no pictures, recordings or shards"),
    (["list", ".", "--split", "validation"], 2, "validation"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG, ids=lambda value: "")
def test_what_cannot_be_shown_ends_in_one_sentence(arguments, code, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_nmnist(tmp_path / "good.bin", some_events(40))
    (tmp_path / "cut.bin").write_bytes(b"1234567")
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for name in "abc":
        picture().save(tmp_path / f"{name}.png")
    fails(capsys, arguments, code, message)
