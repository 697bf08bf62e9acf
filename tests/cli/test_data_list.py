"""``trevsnn data list``: the items of every kind of folder, as training takes them."""

import io
import json
import os
from pathlib import Path

import pytest

from event_files import folder_of_recordings
from helpers import fails, folder_of_pictures, picture, shard_config, shards_of_folder
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.events.sets import list_recordings
from trevsnn.data.pictures.folders import load_folder
from trevsnn.data.pictures.shards import load_shards


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    capsys.readouterr()
    assert main(["data", "list", *arguments]) == 0
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("parts", "piece_ms"), [(("",), None), (("",), 20), (("train", "test"), None), (("train", "test"), 20)]
)
def test_recordings_are_listed_as_training_takes_them(parts, piece_ms, tmp_path, capsys):
    folder_of_recordings(tmp_path, 10, parts)
    own = [] if piece_ms is None else ["--piece_ms", str(piece_ms)]
    every = []
    for split in ("train", "val", "test"):
        part = list_recordings(tmp_path, split, piece_ms)
        expected = [[part.name(i), part.classes[label]] for i, label in enumerate(part.labels_N)]
        assert listed(capsys, str(tmp_path), "--split", split, *own) == expected
        every += [[split, *row] for row in expected]
    assert listed(capsys, str(tmp_path), *own) == every
    assert main(["data", "list", str(tmp_path), "--json", *own]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [[row["split"], row["file"], row["class"]] for row in rows] == every


@pytest.mark.parametrize("parts", [("",), ("train", "test"), ("train", "val", "test")])
def test_pictures_are_listed_as_training_takes_them(parts, tmp_path, capsys):
    folder_of_pictures(tmp_path, parts)
    config = DataConfig(name="folder", root=str(tmp_path))
    for split in ("train", "val", *parts[2:]):
        part = load_folder(config, split)
        expected = [[part.name(i), part.classes[label]] for i, label in enumerate(part.labels_N)]
        assert listed(capsys, str(tmp_path), "--split", split) == expected
    splits = {row[0] for row in listed(capsys, str(tmp_path))}
    assert splits == {"train", "val", *(["test"] if len(parts) > 1 else [])}
    if len(parts) == 1:
        fails(capsys, ["list", str(tmp_path), "--split", "test"], 1, "has no test folder")
    fails(capsys, ["list", str(tmp_path), "--piece_ms", "5"], 2, "data.piece_ms is for recordings")


def test_pictures_in_shards_are_listed(tmp_path, capsys, monkeypatch):
    pytest.importorskip("webdataset")
    folder_of_pictures(tmp_path / "pictures", ("train", "val"), n=5)
    shards_of_folder(tmp_path / "pictures", tmp_path / "shards")
    part = load_shards(shard_config(tmp_path / "shards"), "val")
    expected = [[part.name(i), part.classes[label]] for i, label in enumerate(part.labels_N)]
    assert listed(capsys, str(tmp_path / "shards"), "--split", "val") == expected
    assert len(expected) == 10


def test_names_in_a_list_stay_on_their_line(tmp_path, capsys):
    for name in ("a\tb\nc\x1b[31m.png", os.fsdecode(b"caf\xe9.png"), "plain.png"):
        for class_ in ("cat", "dog"):
            (tmp_path / "train" / class_).mkdir(parents=True, exist_ok=True)
            (tmp_path / "val" / class_).mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            picture().save(content, "PNG")
            (tmp_path / "train" / class_ / name).write_bytes(content.getvalue())
            (tmp_path / "val" / class_ / "x.png").write_bytes(content.getvalue())
    rows = listed(capsys, str(tmp_path), "--split", "train")
    assert [row[0].rpartition("/")[2] for row in rows[:3]] == ["a\\tb\\nc\\x1b[31m.png", "caf\\udce9.png", "plain.png"]
    assert main(["data", "list", str(tmp_path), "--split", "train", "--json"]) == 0
    files = [row["file"] for row in json.loads(capsys.readouterr().out)]
    assert all(Path(file).is_file() for file in files)
    assert len(files) == 6
