"""``trevsnn evaluate`` by class, and ``trevsnn predict`` of folders."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from event_files import some_events, write_nmnist
from trevsnn.cli.evaluate import _class_table, _unreadable, _worst
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.sets import load


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten digits, two folders deep, with a hidden one, a file of another kind and square brackets."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "q[/b]").mkdir(parents=True)
    (folder / ".cache").mkdir()
    held_out = load(DataConfig(), "val", 1)
    for i in range(10):
        Image.fromarray(held_out.images[i]).save(folder / ("q[/b]" if i % 2 else ".") / f"{i} [copy].png")
    for hidden in (".hidden.png", ".cache/x.png"):
        Image.fromarray(held_out.images[0]).save(folder / hidden)
    (folder / "notes.txt").write_text("none")
    return folder


def predictions(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    capsys.readouterr()
    assert main(["predict", "digits", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_options_of_data_are_read_from_a_file(tmp_path, capsys):
    (tmp_path / "data.yaml").write_text("image_size: 6\n")
    results = []
    for options in (["--data", str(tmp_path / "data.yaml")], ["--data.image_size", "6"]):
        assert main(["evaluate", "digits", *options, "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1]


def test_evaluate_prints_every_class_and_writes_the_matrix(tmp_path, capsys):
    assert main(["evaluate", "digits", "--confusion", str(tmp_path / "conf"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    with (tmp_path / "conf" / "confusion.csv").open() as file:
        _, *lines = csv.reader(file)
    assert [[int(n) for n in line[1:]] for line in lines] == result["confusion"]
    assert result["unreadable"] == 0
    confusion = np.array(result["confusion"])
    assert confusion.trace() / confusion.sum() == pytest.approx(result["accuracy"])
    assert [row["items"] for row in result["classes"]] == confusion.sum(1).tolist()
    assert result["accuracy"] <= result["top5"] <= 1
    assert main(["evaluate", "digits"]) == 0
    out = capsys.readouterr().out
    assert "top-5" in out
    for name, row in zip("0123456789", result["classes"], strict=True):
        line = next(line for line in out.splitlines() if line.startswith(f"│ {name} "))
        assert f"{row['recall']:.1%}" in line
        assert f"{row['precision']:.1%}" in line


def test_a_place_the_matrix_cannot_have_is_refused_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["evaluate", str(tmp_path / "nowhere"), "--confusion", str(tmp_path / "file")]) == 2
    assert "give a folder, or a file that ends in .csv or .png" in capsys.readouterr().err


def test_of_many_classes_the_worst_are_printed():
    rows = [
        {"class": f"c{i}", "items": 0 if i == 7 else 9, "recall": None if i == 7 else 1 - i / 100, "precision": None,
         "mistaken_for": None, "mistaken": 0} for i in range(31)
    ]  # fmt: skip
    assert _worst(rows[:30]) == rows[:30]
    assert [row["class"] for row in _worst(rows)] == [f"c{i}" for i in range(30, 10, -1)]
    assert _class_table(_worst(rows)).row_count == 20


def test_a_folder_is_its_files_in_batches_of_any_size(digits, capsys):
    files = sorted(str(p) for p in [*digits.glob("*.png"), *digits.glob("q*/*/*.png")] if not p.name.startswith("."))
    one_by_one = [row for file in files for row in predictions(capsys, file)]
    assert len({row["class"] for row in one_by_one}) > 3
    for batch in ("1", "3", "64"):
        rows = predictions(capsys, str(digits), "--batch", batch)
        assert [row["file"] for row in rows] == files
        for row, alone in zip(rows, one_by_one, strict=True):
            assert row["class"] == alone["class"]
            assert row["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-5)
    assert main(["predict", "digits", str(digits)]) == 0
    out = "".join(re.findall(r"│ (.*?) *│.*│.*│", capsys.readouterr().out))
    assert out.count("[copy].png") == 10
    assert out.count("q[/b]") == 5


def test_top_classes(digits, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # a line for each class, however long the path is
    (whole,) = predictions(capsys, str(digits / "0 [copy].png"))
    (row,) = predictions(capsys, str(digits / "0 [copy].png"), "--top", "3")
    likeliest = sorted(whole["probabilities"].items(), key=lambda pair: -pair[1])[:3]
    assert list(row["probabilities"].items()) == likeliest
    assert row["class"] == likeliest[0][0]
    assert len(whole["probabilities"]) == 10
    assert main(["predict", "digits", str(digits / "0 [copy].png"), "--top", "99"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert len(lines) == 10


def test_what_cannot_be_read_is_named_after_the_rest(digits, tmp_path, capsys):
    shutil.copytree(digits, tmp_path / "all")
    (tmp_path / "all" / "bad.png").write_bytes(b"no picture")
    missing = tmp_path / "gone.png"
    assert main(["predict", "digits", str(missing), str(tmp_path / "all"), "--batch", "2"]) == 1
    out, error = capsys.readouterr()
    assert out.count("%") == 10
    assert error.startswith("trevsnn: error: 2 of 12 files cannot be read: ")
    assert f"{missing} does not exist" in error
    assert "bad.png cannot be read as a picture (its format is unknown)" in error
    assert error.count("\n") == 1
    assert main(["predict", "digits", str(missing), "--json"]) == 1
    out, error = capsys.readouterr()
    assert json.loads(out) == []
    assert error.startswith(f"trevsnn: error: {missing} does not exist")


def test_many_unreadable_files_are_counted():
    text = _unreadable([f"{i} is bad." for i in range(23)], 50)
    assert text.startswith("23 of 50 files cannot be read: 0 is bad; 1 is bad; ")
    assert text.endswith("; 19 is bad; and 3 more.")


def test_files_of_the_other_kind(digits, tmp_path, capsys):
    write_nmnist(tmp_path / "r.bin", some_events(400))
    for run, file, message in (
        ("digits", tmp_path / "r.bin", "r.bin is a recording, and the run was trained on pictures: give it a picture."),
        (
            "n-mnist",
            digits / "0 [copy].png",
            "is a picture, and the run was trained on recordings: give it a recording.",
        ),
        ("n-mnist", digits, f"the folder {digits} holds no recordings: of files, it takes those that end in .aedat, "),
        ("digits", tmp_path, f"the folder {tmp_path} holds no pictures: of files, it takes those that end in .jpg, "),
    ):
        assert main(["predict", run, str(file)]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert main(["predict", "n-mnist", str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["file"] == str(tmp_path / "r.bin")


def test_a_name_that_is_no_utf_8_is_printed(digits, tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(digits / "0 [copy].png", tmp_path / name)
    except OSError:
        pytest.skip("this file system has no such names")
    assert main(["predict", "digits", str(tmp_path)]) == 0
    assert r"caf\udce9.png" in "".join(re.findall(r"│ (.*?) *│.*│.*│", capsys.readouterr().out))
