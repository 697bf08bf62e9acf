"""``trevsnn stream`` over windows: the same as predicting each window's events, from files and as they arrive."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from event_files import some_events, write_nmnist
from trevsnn.cli.main import main
from trevsnn.data.events.recordings import read_recording
from trevsnn.deploy.live import Live
from trevsnn.deploy.play import play_picture
from trevsnn.run.load import load_run


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 ms with a gap from 70 to 105 ms."""
    events = some_events(1500)
    events["t"] = np.sort(np.random.default_rng(0).integers(0, 70_000, 1500))
    behind = some_events(300, seed=1)
    behind["t"] = 105_000 + np.arange(300) * 50
    behind["t"][-1] = 119_999
    events["t"][0] = 0
    path = tmp_path_factory.mktemp("live") / "a.bin"
    write_nmnist(path, np.concatenate([events, behind]))
    return path


def rows_of(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


def test_windows_are_predicted_as_files_of_their_events(tmp_path, recording, capsys):
    assert main(["stream", "n-mnist", str(recording), "--window_ms", "40", "--hop_ms", "20", "--json"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert [(row["window"], row["from"], row["until"]) for row in rows] == [
        (1, 0, 40_000), (2, 20_000, 60_000), (3, 40_000, 80_000), (4, 60_000, 100_000), (5, 80_000, 120_000),
    ]  # fmt: skip
    events = read_recording(recording)
    for row in rows:
        own = events[(events["t"] >= row["from"]) & (events["t"] < row["until"])]
        assert row["events"] == len(own) > 0
        write_nmnist(tmp_path / f"{row['window']}.bin", own)
    capsys.readouterr()
    assert (
        main(["predict", "n-mnist", *(str(tmp_path / f"{i}.bin") for i in range(1, 6)), "--json", "--batch", "1"]) == 0
    )
    for row, alone in zip(rows, json.loads(capsys.readouterr().out), strict=True):
        assert row["class"] == alone["class"]
        assert row["probabilities"] == alone["probabilities"]


def test_a_window_slides_by_a_frame_and_a_gap_is_told_once(recording, capsys):
    assert main(["stream", "n-mnist", str(recording), "--window_ms", "20"]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert sum("nothing to see" in line for line in lines) == 1
    assert lines[0].split()[:6] == ["window", "1", "0.0", "to", "20.0", "ms"]
    assert lines[1].split()[2] == "5.0"  # T is 4
    assert "windows of 20 ms, one every 5 ms; to compute one took" in told.err
    assert (
        main(["stream", "n-mnist", str(recording), "--window-ms", "20", "--json"]) == 0
    )  # the same, spelled otherwise
    rows = rows_of(capsys.readouterr().out)
    (empty,) = [row for row in rows if row["class"] is None]
    assert (empty["events"], empty["probabilities"], empty["from"]) == (0, None, 70_000)
    assert len(rows) == len(lines)


def test_events_are_classified_as_they_arrive(recording, capsys):
    """A window is told while the pipe is open still, and all are those of the file."""
    assert main(["stream", "n-mnist", str(recording), "--window_ms", "40", "--json"]) == 0
    expected = rows_of(capsys.readouterr().out)
    content = recording.read_bytes()
    command = [
        sys.executable,
        "-m",
        "trevsnn",
        "stream",
        "n-mnist",
        "-",
        "--format",
        "bin",
        "--window_ms",
        "40",
        "--json",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(content[:6000])  # within an event, and within the seventh window
        process.stdin.flush()
        first = process.stdout.readline()
        process.stdin.write(content[6000:])
        process.stdin.close()
        rows = rows_of((first + process.stdout.read()).decode())
    assert process.returncode == 0
    for row in (*rows, *expected):
        row.pop("seconds")
    assert rows == expected


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["digits", "R", "--window_ms", "20"], 2, "trained on pictures"),
        (["n-mnist", "R", "--hop_ms", "20"], 2, "trained on whole recordings: say with --window_ms how long"),
        (["n-mnist", "R", "--window_ms", "0"], 2, "--window_ms is 0; it must be at least 0.001"),
        (["n-mnist", "R", "--window_ms", ".nan"], 2, "--window_ms is nan; it must"),
        (["n-mnist", "R", "--window_ms", "20", "--hop_ms", "-1"], 2, "--hop_ms is -1; it must"),
        (["n-mnist", "R", "--window_ms", "500"], 1, "shorter than a window of 500 ms: lower --window_ms"),
        (["n-mnist", "EMPTY", "--window_ms", "500"], 1, "the recording holds no events: fetch it again"),
        (["n-mnist", "R", "--format", "raw"], 2, "--format belongs to standard input"),
        (["n-mnist", "-", "--window_ms", "20"], 2, "give it, such as --format raw"),
        (
            ["n-mnist", "-", "--window_ms", "20", "--format", "h5"],
            2,
            "recordings that end in .h5 are read from a file alone",
        ),
        (["n-mnist", "MISSING", "--window_ms", "20"], 1, "does not exist"),
        (["n-mnist", "STRAY", "--window_ms", "20"], 1, "at 30 us, lies at (99, 3), outside a sensor of 34 x 34"),
    ],
)
def test_what_cannot_be_streamed_is_said(tmp_path, recording, capsys, arguments, code, message):
    stray = some_events(30)
    stray["t"], stray["x"][10], stray["y"][10] = np.arange(30) * 3, 99, 3
    stray["t"][-1] = 50_000
    write_nmnist(tmp_path / "stray.bin", stray)
    (tmp_path / "empty.bin").touch()
    place = {
        "EMPTY": str(tmp_path / "empty.bin"),
        "R": str(recording),
        "MISSING": str(tmp_path / "b.bin"),
        "STRAY": str(tmp_path / "stray.bin"),
    }
    assert main(["stream", *(place.get(a, a) for a in arguments)]) == code
    assert message in capsys.readouterr().err


def test_the_state_does_not_grow_with_the_recording(tmp_path):
    """What a window leaves behind are its seconds alone, and events of the windows to come."""
    live = Live(load_run(Path("n-mnist"), "last"), 5.0, 5.0)
    events = some_events(20_000)
    events["t"] = np.arange(20_000) * 10
    events["t"][-1] += 9
    write_nmnist(tmp_path / "long.bin", events)
    rows = list(live.play(tmp_path / "long.bin"))
    assert len(rows) == len(live.seconds) == 40
    assert {row["events"] for row in rows} == {500}


def test_names_are_drawn_letter_by_letter():
    names = ["$x_{1}$", "_hidden", "a\x1b[31mb"]
    rows = [{"until": 10 * i, "probabilities": dict.fromkeys(names, 1 / 3)} for i in range(3)]
    figure = play_picture(rows, "$\\frac$.bin")
    figure.savefig(io.BytesIO(), format="png")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["$x_{1}$", "_hidden", "a\\x1b[31mb"]
    assert axes.get_title(loc="left") == "$\\frac$.bin"
    assert not any(text.get_parse_math() for text in (*axes.texts, axes._left_title))


def test_the_picture_draws_the_classes_that_were_likely_at_any_time():
    names = [f"class {i}" for i in range(12)]
    rows = [{"until": 10 * i, "probabilities": {name: float(name == f"class {i}") for name in names}} for i in range(9)]
    (axes,) = play_picture(rows, "a.bin").axes
    assert [text.get_text() for text in axes.texts] == [f"class {i}" for i in range(8)]
    assert axes.get_title(loc="left") == "a.bin; 8 of 12 classes"
    assert list(axes.lines[3].get_ydata()) == [0, 0, 0, 100, 0, 0, 0, 0, 0]


def test_classes_that_could_not_be_seen_are_left_out():
    rows = [{"until": 10 * i, "probabilities": {"a": 0.97, "b": 0.02, "c": 0.01}} for i in range(2)]
    (axes,) = play_picture(rows, "a.bin").axes
    assert [text.get_text() for text in axes.texts] == ["a", "b"]
    assert axes.get_title(loc="left") == "a.bin; 2 of 3 classes"


def test_a_table_of_seconds_and_signs_is_streamed_and_what_fills_no_window_is_counted(tmp_path, recording, capsys):
    events = read_recording(recording)
    lines = [f"{t / 1e6:.6f},{x},{y},{2 * p - 1}" for x, y, t, p in events.tolist()]
    (tmp_path / "a.csv").write_text("\n".join(["t,x,y,p", *lines, ""]))
    stated = ["--time_unit", "s", "--polarity", "signed", "--json"]
    rows = []
    for options in ([str(recording), "--json"], [str(tmp_path / "a.csv"), *stated]):
        assert main(["stream", "n-mnist", *options, "--window_ms", "50", "--hop_ms", "50"]) == 0
        told = capsys.readouterr()
        rows.append([{**row, "seconds": 0} for row in rows_of(told.out)])
        assert f"{(events['t'] >= 100_000).sum()} events at the end fill no window" in told.err
    assert rows[0] == rows[1]
    assert main(["stream", "n-mnist", str(tmp_path / "a.csv"), *stated]) == 0  # as a clip
    (clip,) = [row["probabilities"] for row in json.loads(capsys.readouterr().out)][-1:]
    assert main(["stream", "n-mnist", str(recording), "--json"]) == 0
    assert clip == json.loads(capsys.readouterr().out)[-1]["probabilities"]
