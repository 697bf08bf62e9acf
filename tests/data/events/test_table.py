"""A folder of recordings with a table of labels, and parts that are given otherwise."""

import os

import numpy as np
import pytest

from event_files import event_config, folder_of_recordings, some_events, write_nmnist
from trevsnn.data.events.sets import list_recordings, recording_splits
from trevsnn.data.sets import load
from trevsnn.errors import RunError

SPLITS = ("train", "val", "test")


def flat(root, rows, columns="file,label"):
    root.mkdir(parents=True, exist_ok=True)
    for seed, row in enumerate(rows):
        write_nmnist(root / row.split(",")[0], some_events(50, seed=seed))
    (root / "labels.csv").write_text("\n".join([columns, *rows]) + "\n")


def test_a_flat_folder_is_split_by_the_ends_of_its_classes(tmp_path):
    rows = [f"r{i}.bin,{'dog' if i % 3 else 'cat'}" for i in range(12)]
    flat(tmp_path / "data", rows)
    parts = {split: list_recordings(tmp_path / "data", split) for split in SPLITS}
    assert parts["train"].classes == ("cat", "dog")
    assert parts["train"].files == ["r0.bin", "r3.bin", "r1.bin", "r2.bin", "r4.bin", "r5.bin", "r7.bin", "r8.bin"]
    assert [parts[s].files for s in ("val", "test")] == [["r6.bin", "r10.bin"], ["r9.bin", "r11.bin"]]
    assert parts["test"].labels_N.tolist() == [0, 1]
    pieces = list_recordings(tmp_path / "data", "test", 10.0)
    assert {name.partition("@")[0] for name in pieces.files} == {row.partition(",")[0] for row in rows}  # split by time


def test_a_table_may_say_the_parts(tmp_path):
    """Columns in any order, others left alone, files in folders, and a mark of byte order at the beginning."""
    rows = ["a.bin,train,1,cat", "b.bin,train,2,dog", "sub/c.bin,test,3,dog", "d.bin,val,4,cat"]
    flat(tmp_path / "data", rows, "\ufefffile,part,note,label")
    assert {s: list_recordings(tmp_path / "data", s).files for s in SPLITS} == {
        "train": ["a.bin", "b.bin"], "val": ["d.bin"], "test": ["sub/c.bin"],
    }  # fmt: skip
    config = event_config(tmp_path)
    assert recording_splits(config) == ["train", "val", "test"]
    assert load(config, "test", 2).read(0).sum() == 50
    flat(tmp_path / "data", [*rows[:2], rows[3]], "file,part,note,label")
    assert recording_splits(config) == ["train", "val"]
    with pytest.raises(RunError, match=r"labels.csv names no recording of part test"):
        list_recordings(tmp_path / "data", "test")
    more = [f"{c}{i}.bin,train,{c}" for c in "xy" for i in range(10)]
    flat(tmp_path / "cut", [*more, "z.bin,test,x"], "file,part,label")
    assert [len(list_recordings(tmp_path / "cut", s)) for s in SPLITS] == [18, 2, 1]
    assert np.bincount(list_recordings(tmp_path / "cut", "val").labels_N).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "its first line names the columns none, not file and label"),
        ("name,class\na.bin,cat\n", "its first line names the columns name, class, not file and label"),
        ("file,label\n", "names no recordings"),
        ("file,label\na.bin\n", "line 2 of .*labels.csv has no label: fill it in"),
        ("file,label\na.bin,cat\na.bin,dog\n", "names a.bin twice"),
        ("file,label\n./a.bin,cat\na.bin,dog\n", "names a.bin twice"),
        ("file,label\na.bin,cat\nsub/link.bin,dog\n", "names a.bin and sub/link.bin, which are one file"),
        (
            "file,label\na.bin,arm, left\nb.bin,dog\n",
            "line 2 has more fields than there are columns: put a label with a comma",
        ),
        (
            "file,label,label\na.bin,cat,dog\n",
            "its first line names the columns file, label, label, not file and label, each once",
        ),
        ('file,label\n\n"a.bin","c\nat"\n\nc.bin,dog\n', "line 6 .* names c.bin, which is not there"),
        ("file,label\na.bin,cat\nc.bin,dog\n", "line 3 .* names c.bin, which is not there"),
        ("file,label\n../a.bin,cat\n", r"names \.\./a.bin, which is outside the folder"),
        ("file,label\n/a.bin,cat\n", "which is outside the folder"),
        ("file,label\na.bin,cat\nnotes.txt,dog\n", "names notes.txt, which is no recording"),
        ("file,label\na.bin,cat\n", "does not name b.bin: add their lines"),
        ("file,label,part\na.bin,cat,train\nb.bin,dog,dev\n", "has the part 'dev': it is one of train, val, test"),
        ("file,label,part\na.bin,cat,train\nb.bin,dog,test\n", "has no recording to train on of class dog"),
        ('file,label\na.bin,"cat\n', "cannot be read as a table of labels"),
        ("file,label\na.bin,cat\nb.bin,dog\n", "class 'cat' has 1 of the three recordings"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path, table, message):
    for name in ("a", "b"):
        write_nmnist(tmp_path / f"{name}.bin", some_events(10))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link.bin").symlink_to("../a.bin")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(RunError, match=message):
        list_recordings(tmp_path, "train")


def test_spaces_around_what_a_table_says_are_none_of_it(tmp_path):
    flat(tmp_path / "data", [f"{c}{i}.bin, {c} " for c in "xy" for i in range(3)], " file, label ")
    part = list_recordings(tmp_path / "data", "test")
    assert (part.files, part.classes) == (["x2.bin", "y2.bin"], ("x", "y"))


def test_a_table_that_is_no_file_is_not_waited_for(tmp_path):
    folder_of_recordings(tmp_path, 3)
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(
        RunError, match=r"labels.csv cannot be read .* \(it is a pipe or a device, and no regular file\)"
    ):
        list_recordings(tmp_path, "train")
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "labels.csv").symlink_to("nothing")
    with pytest.raises(RunError, match=r"labels.csv cannot be read as a table of labels .*No such file"):
        list_recordings(tmp_path, "train")


def test_train_and_val_alone_are_two_parts(tmp_path):
    """With two recordings of a class this is the way to say which is for what."""
    folder_of_recordings(tmp_path / "data", 2)
    with pytest.raises(
        RunError, match=r"class 'cat' has 2 of the three .*: add some; or cut them .* train/CLASS and val/CLASS"
    ):
        list_recordings(tmp_path / "data", "train")
    for name in ("cat", "dog"):
        for part, i in (("train", 0), ("val", 1)):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            (tmp_path / "data" / name / f"{name}_{i}.bin").rename(tmp_path / "set" / part / name / f"{i}.bin")
    config = event_config(tmp_path, root=str(tmp_path / "set"))
    assert recording_splits(config) == ["train", "val"]
    assert [list_recordings(tmp_path / "set", s).files for s in ("train", "val")] == [
        ["cat/0.bin", "dog/0.bin"], ["cat/1.bin", "dog/1.bin"],
    ]  # fmt: skip
    with pytest.raises(RunError, match="has no test folder: it holds train and val"):
        list_recordings(tmp_path / "set", "test")
    (tmp_path / "set" / "train").rename(tmp_path / "set" / "test")
    with pytest.raises(RunError, match="holds test and val, but no train"):
        list_recordings(tmp_path / "set", "val")


def test_train_alone_is_split_as_class_folders_are(tmp_path):
    folder_of_recordings(tmp_path, 20, ("train",))
    folder_of_recordings(tmp_path / "plain", 20)
    for split in SPLITS:
        assert list_recordings(tmp_path, split).files == list_recordings(tmp_path / "plain", split).files
