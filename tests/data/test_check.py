"""The check of a data set."""

import json
import re
from pathlib import Path

from helpers import folder_config, folder_of_pictures, picture, write_tar
from trevsnn.cli.main import main
from trevsnn.data.pictures.folders import load_folder


def test_the_check_names_what_is_odd(tmp_path, capsys):
    folder_of_pictures(tmp_path, ("train", "val"), n=3)
    odd = tmp_path / "train" / "cat"
    picture(1, mode="L").save(odd / "grey.png")
    picture(1, mode="CMYK").save(odd / "print.jpg")
    picture(1, mode="P").save(odd / "palette.png")
    picture(1, mode="RGBA").save(odd / "clear.png")
    picture(1).save(odd / "wrong.jpg", "PNG")
    (odd / "notes.txt").write_text("x")
    (odd / "cut.png").write_bytes((odd / "000.png").read_bytes()[:80])
    (odd / "events.bin").write_bytes(b"123")
    assert main(["data", "check", str(tmp_path), "--json"]) == 1
    captured = capsys.readouterr()
    assert re.search("2 files below .* cannot be read: replace them, or train with --data.on_unreadable", captured.err)
    result = json.loads(captured.out)
    assert result["parts"]["train"] == {"classes": 2, "files": 14, "smallest_class": 3, "largest_class": 11}
    assert {Path(f).name for f in result["unreadable"]} == {"cut.png", "events.bin"}
    assert {kind: [Path(f).name for f in files] for kind, files in result["odd"].items()} == {
        "grey": ["grey.png"], "CMYK": ["print.jpg"], "palette": ["palette.png"], "transparency": ["clear.png"],
        "PNG named .jpg": ["wrong.jpg"], "neither picture nor recording": ["notes.txt"],
    }  # fmt: skip
    for name in ("cut.png", "events.bin"):
        (odd / name).unlink()
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "0 unreadable files" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is no folder" in capsys.readouterr().err


def test_shards_are_said_to_be_none_of_its_business(tmp_path, capsys):
    for name in ("train-0.tar", "train/0.tar"):
        write_tar(tmp_path / name, [])
        assert main(["data", "check", str(tmp_path)]) == 1
        assert "holds shards (.tar), and this checks folders of pictures or recordings" in capsys.readouterr().err
        (tmp_path / name).unlink()


def test_class_folders_alone_are_understood_and_long_lists_are_cut(tmp_path, capsys):
    folder_of_pictures(tmp_path / "set", ("",), n=3)
    for i in range(25):
        (tmp_path / "set" / "cat" / f"{i:02}.txt").write_text("x")
        (tmp_path / "set" / "dog" / f"bad{i:02}.png").write_bytes(b"x")
    (tmp_path / "set" / "dog" / "._000.png").write_bytes(b"x")
    assert main(["data", "check", str(tmp_path / "set")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum("cannot be read as a picture" in line for line in lines) == 20
    assert "and 5 more" in lines
    (others,) = [line for line in lines if line.startswith("25 neither picture nor recording: ")]
    assert others.count(".txt") == 20
    assert others.endswith("19.txt and 5 more")
    assert any(line.startswith("1 hidden: ") and line.endswith("._000.png") for line in lines)
    config = folder_config(tmp_path / "set")
    held_out = len(load_folder(config, "val"))
    assert f"there is no val or test: training holds out {held_out} pictures, by a hash of their names" in lines


def test_what_training_would_refuse_is_said(tmp_path, capsys):
    folder_of_pictures(tmp_path, ("training", "val"), n=3)
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "training is no part by its name: rename it to train" in capsys.readouterr().err
    folder_of_pictures(tmp_path / "few", ("train",), n=1)
    assert main(["data", "check", str(tmp_path / "few")]) == 0
    assert "class 'cat' has one picture alone" in capsys.readouterr().out
