"""The check of a data set."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from event_files import folder_of_recordings, some_events, write_nmnist
from helpers import folder_config, folder_of_pictures, picture, write_tar
from trevsnn.cli.main import main
from trevsnn.data.pictures.folders import folder_splits, load_folder
from trevsnn.data.pictures.look import look_at
from trevsnn.errors import RunError


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
    assert main(["data", "check", str(tmp_path / "few")]) == 1
    assert "class 'cat' has one picture alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("val", "missing", "val/dog holds no file that ends in .jpg, .*: every class needs one"),
        ("test", "missing", "test/dog holds no file that ends in"),
        ("val", "strange", "val has a folder 'emu' that is no class of the training part"),
        ("test", "strange", "test has a folder 'emu' that is no class of the training part"),
        ("train", "empty", "train/emu holds no file that ends in"),
        ("train", "missing", "train holds one class alone, cat: two at least are needed"),
        ("train", "no part", "holds .* and .*, but no train: it needs train/CLASS"),
    ],
)
def test_every_part_that_training_reads_is_compared(tmp_path, capsys, part, change, message):
    """What ``trevsnn train`` refuses before its first step, the check does not pass."""
    folder_of_pictures(tmp_path, ("train", "val", "test"), n=2)
    if change == "missing":
        shutil.rmtree(tmp_path / part / "dog")
    elif change == "no part":
        shutil.rmtree(tmp_path / part)
    else:
        (tmp_path / part / "emu").mkdir()
    if change == "strange":
        picture(1).save(tmp_path / part / "emu" / "000.png")
    assert main(["data", "check", str(tmp_path), "--json"]) == 1
    captured = capsys.readouterr()
    assert re.search(message, json.loads(captured.out)["problem"])
    assert re.search(message, captured.err)
    with pytest.raises(RunError, match=message):
        begin_training(tmp_path)


def begin_training(root: Path) -> None:
    """What a training reads of a folder before its first step."""
    look_at(root)
    config = folder_config(root)
    for split in folder_splits(config):
        load_folder(config, split)


def test_oddities_of_folders_and_files_are_counted(tmp_path, capsys):
    """Each kind of oddity, on real files; none is a fault."""
    root = tmp_path / "set"
    folder_of_pictures(root, ("train", "val"), n=2)
    cat = root / "train" / "cat"
    for name in (".ipynb_checkpoints", "__MACOSX", "more"):
        (cat / name).mkdir()
        picture(1).save(cat / name / "x.png")
    (cat / "._000.png").write_bytes(b"x")
    (cat / "Thumbs.db").write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    (root / "train" / "$RECYCLE.BIN").mkdir()
    folder_of_pictures(tmp_path / "elsewhere", ("",), n=1)
    (cat / "linked").symlink_to(tmp_path / "elsewhere" / "dog")
    (root / "train" / "dog").rename(tmp_path / "dogs")
    (root / "train" / "dog").symlink_to(tmp_path / "dogs")
    for part in ("train", "val"):
        (root / part / "\udce9").mkdir()
        shutil.copy(cat / "000.png", root / part / "\udce9")
    (cat / "once more").symlink_to(cat / "more")
    (cat / "back").symlink_to(root)
    (root / "train" / "self").symlink_to(root / "train")
    shutil.copy(cat / "000.png", os.fsencode(cat) + b"/caf\xe9.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture(1).save(cat / "turned.jpg", exif=exif)
    picture(1).save(cat / "damaged.jpg", exif=b"Exif\0\0not an EXIF block")
    picture(1).save(cat / "moving.webp", save_all=True, append_images=[picture(2)])
    picture(1).save(cat / "pages.tif", save_all=True, append_images=[picture(2)])
    picture(1, mode="L").save(cat / "clear.png", transparency=3)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(cat / "deep.png")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(cat / "float.tif")
    picture(1, mode="LAB").save(cat / "lab.tif")
    assert main(["data", "check", str(root), "--json"]) == 0
    odd = json.loads(capsys.readouterr().out)["odd"]
    assert {kind: sorted(Path(f).name for f in files) for kind, files in odd.items()} == {
        "hidden": ["._000.png", ".ipynb_checkpoints"],
        "left behind by a system": ["$RECYCLE.BIN", "Thumbs.db", "__MACOSX", "__MACOSX"],
        "links to folders, which are followed": ["dog", "linked"],
        "links back to a folder that they lie in": ["back", "self"],
        "folders that are taken already under another name": ["once more"],
        "names that are no UTF-8": ["caf\udce9.png", "\udce9", "\udce9"],
        "turned by EXIF": ["turned.jpg"],
        "EXIF that cannot be read, and is ignored": ["damaged.jpg"],
        "animated or of many pages: the first is taken": ["moving.webp", "pages.tif"],
        "grey": ["clear.png", "deep.png", "float.tif"],
        "transparency": ["clear.png"],
        "16 bits a channel": ["deep.png"],
        "levels in floats": ["float.tif"],
        "LAB": ["lab.tif"],
    }
    assert main(["data", "check", str(root)]) == 0
    assert "caf\\udce9.png" in capsys.readouterr().out


def test_all_lists_all(tmp_path, capsys):
    folder_of_pictures(tmp_path, ("train", "val"), n=2)
    for i in range(25):
        (tmp_path / "train" / "cat" / f"note{i:02}.txt").write_text("x")
    assert main(["data", "check", str(tmp_path)]) == 0
    short = capsys.readouterr().out
    assert (short.count("note"), "--all lists them all" in short) == (20, True)
    assert main(["data", "check", str(tmp_path), "--all"]) == 0
    whole = capsys.readouterr().out
    assert (whole.count("note"), "--all lists them all" in whole) == (25, False)


def test_previews_beside_recordings_are_no_set_of_pictures(tmp_path, capsys):
    for part in ("Train", "Test"):
        for name in ("0", "1"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(12):
                (tmp_path / part / name / f"{i}.bin").write_bytes(bytes([1, 2, 0, 0, 1]) * 9)
    picture(1).save(tmp_path / "Train" / "0" / "preview.png")
    assert main(["data", "check", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problem"] is None


def test_recordings_are_checked_as_training_would_list_them_and_their_oddities_counted(tmp_path, capsys):
    folder_of_recordings(tmp_path / "set", 3, ("train", "test"))
    stray = some_events(60, (20, 20))
    stray["x"][5] = 33
    write_nmnist(tmp_path / "set" / "train" / "cat" / "cat_1.bin", stray)
    late = some_events(60, (20, 20), seed=1)
    late["t"] = np.arange(60) * 10
    late["t"][[7, 8]] = [80, 70]
    write_nmnist(tmp_path / "set" / "train" / "dog" / "dog_1.bin", late)
    hot = np.concatenate([some_events(60, (20, 20)), late[:1].repeat(200)])
    write_nmnist(tmp_path / "set" / "test" / "dog" / "dog_1.bin", hot)
    root = tmp_path / "set"
    assert main(["data", "check", str(root), "--sensor", "32", "34", "--json"]) == 1
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (
        "no validation part can be cut from 6 training items" in found["problem"]
    )  # a tenth of six is no item of each class
    assert found["odd"]["with events out of order"] == [
        str(root / n) for n in ("train/dog/dog_1.bin", "test/dog/dog_1.bin")
    ]
    assert str(root / "train/cat/cat_1.bin") in found["odd"]["with events outside the sensor"]
    assert found["odd"]["with hot pixels"] == [str(root / "test/dog/dog_1.bin")]
    folder_of_recordings(root, 1, ("val",))
    assert main(["data", "check", str(root)]) == 0
    assert "1 with hot pixels" in " ".join(capsys.readouterr().out.split())
    (root / "test" / "cat").rename(root / "test" / "cow")
    assert main(["data", "check", str(root)]) == 1
    assert "'cow' that is no class of the training part" in capsys.readouterr().err


def test_a_table_of_recordings_is_checked(tmp_path, capsys):
    for i in range(6):
        write_nmnist(tmp_path / f"{i}.bin", some_events(40, seed=i))
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{i}.bin,{'ab'[i % 2]}\n" for i in range(6)))
    assert main(["data", "check", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parts"] == {tmp_path.name: {"classes": 2, "files": 6, "smallest_class": 3, "largest_class": 3}}
    (tmp_path / "5.bin").write_bytes(b"123")
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "1 files below" in capsys.readouterr().err
