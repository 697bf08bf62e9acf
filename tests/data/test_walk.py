"""What lies below a folder: links, loops, what is hidden, and the order."""

import os
from pathlib import Path

import pytest

from trevsnn.data.config import DataConfig
from trevsnn.data.files import find_inputs
from trevsnn.data.listing import find_parts, list_classes, list_files
from trevsnn.data.walk import is_hidden, leads_back, walk
from trevsnn.errors import RunError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def files_of(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in walk(folder).files]


NAMES = ["b.png", "B.png", "[1].png", "a b.png", "a\nb.png", "-x.png", "é.png", "e\u0301.png", "x" * 250 + ".png", "a/b.png", "a-b/c.png", "a/c/d.png"]  # fmt: skip


def test_without_links_the_order_is_that_of_relative_paths(tmp_path):
    """By which the digests of parts are made; no two names are taken for one."""
    touch(*(tmp_path / "cat" / name for name in NAMES), tmp_path / "dog" / "0.png")
    assert list_files(tmp_path, (".png",), ("cat", "dog")) == (
        [*sorted(f"cat/{name}" for name in NAMES), "dog/0.png"],
        [0] * len(NAMES) + [1],
    )
    rglob = sorted(path for path in (tmp_path / "cat").rglob("*") if path.is_file())
    assert walk(tmp_path / "cat").files == rglob


def test_links_are_followed_once_and_never_back(tmp_path):
    set_, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    touch(set_ / "real/1.png", elsewhere / "2.png", elsewhere / "deep/3.png", set_ / "other/4.png")
    (set_ / "a").symlink_to(set_ / "real")  # it has a path of its own, which is kept
    (set_ / "b").symlink_to(elsewhere)
    (set_ / "c").symlink_to(elsewhere / "deep")  # in b already
    (set_ / "d").symlink_to("..")
    (elsewhere / "round").symlink_to(set_)
    (elsewhere / "self").symlink_to(elsewhere)
    (set_ / "nowhere.png").symlink_to(tmp_path / "nowhere")
    (set_ / "itself.png").symlink_to(set_ / "itself.png")
    (set_ / "one.png").symlink_to(elsewhere / "2.png")
    found = walk(set_)
    assert files_of(set_) == [
        "b/2.png", "b/deep/3.png", "itself.png", "nowhere.png", "one.png", "other/4.png", "real/1.png"
    ]  # fmt: skip
    assert found.links == [set_ / "b"]
    assert found.loops == [set_ / "b/self", set_ / "d"]
    assert found.again == [set_ / "a", set_ / "b/round", set_ / "c"]


def list_training(root: Path) -> None:
    train = find_parts(root)["train"]
    list_files(train, (".png",), list_classes(train))


def test_a_folder_in_two_classes_or_in_training_and_another_part_is_refused(tmp_path):
    """By links to it: its files would have two labels, or be validated on after they were trained on."""
    for name in ("train/cat", "train/dog/deep", "val/cat", "val/dog"):
        touch(tmp_path / name / "1.png")
    links = {
        "train/emu": "cat", "train/cat/more": "../dog", "train/cat/x": "../dog/deep",
        "val/emu": "../train/cat", "test": "train", "Test": tmp_path / "train/dog",
    }  # fmt: skip
    for link, target in links.items():
        (tmp_path / link).symlink_to(target)
        with pytest.raises(RunError, match=r"are one folder, by a link|leads to class '(cat|dog)'") as error:
            list_training(tmp_path)
        assert str(tmp_path / link) in str(error.value)
        (tmp_path / link).unlink()
    (tmp_path / "test").symlink_to("val")  # which nothing is trained on
    assert set(find_parts(tmp_path)) == {"train", "val", "test"}


def test_a_class_that_is_spelled_otherwise_is_named_with_the_one_that_is_meant(tmp_path):
    touch(tmp_path / "Cat/1.png", tmp_path / "cafe\u0301/1.png")
    for classes, other, meant in (
        (("cafe\u0301", "cat"), "Cat", "cat"),
        (("Cat", "caf\u00e9"), "cafe\u0301", "caf\u00e9"),
    ):
        with pytest.raises(
            RunError, match=f"'{other}' that is no class .*, but for its letters' case or form it is '{meant}'"
        ):
            list_files(tmp_path, (".png",), classes)


def test_a_class_that_is_a_link_is_followed_unless_it_leads_back(tmp_path):
    touch(tmp_path / "elsewhere/1.png", tmp_path / "set/dog/2.png")
    (tmp_path / "set/cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/all").symlink_to(tmp_path / "set")
    (tmp_path / "set/up").symlink_to("..")
    assert list_classes(tmp_path / "set") == ("cat", "dog")
    assert list_files(tmp_path / "set", (".png",), ("cat", "dog")) == (["cat/1.png", "dog/2.png"], [0, 1])
    assert [leads_back(tmp_path / "set" / name) for name in ("all", "up", "cat", "dog")] == [True, True, False, False]


@pytest.mark.parametrize(
    "name",
    [".ipynb_checkpoints", "._1.png", ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", "__MACOSX", "lost+found"],
)
def test_what_is_no_data_is_left_out_at_any_depth(tmp_path, name):
    assert is_hidden(name)
    touch(tmp_path / "set/cat/1.png", tmp_path / "set/cat/deep" / name / "x.png", tmp_path / "set" / name / "x.png")
    touch(tmp_path / "set/cat" / name / "x.png")
    assert list_classes(tmp_path / "set") == ("cat",)
    assert list_files(tmp_path / "set", (".png",), ("cat",)) == (["cat/1.png"], [0])
    assert walk(tmp_path / "set/cat").hidden == sorted([tmp_path / "set/cat" / name, tmp_path / "set/cat/deep" / name])
    config = DataConfig(name="folder", root=".")
    assert find_inputs([tmp_path / "set"], config) == [tmp_path / "set/cat/1.png"]


def test_names_that_are_no_utf_8_are_kept_as_they_are(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    assert list_files(tmp_path, (".png",), ("cat",)) == (["cat/caf\udce9.png"], [0])


def test_predict_takes_what_links_lead_to(tmp_path):
    touch(tmp_path / "elsewhere/1.png", tmp_path / "set/2.png")
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/back").symlink_to(tmp_path / "set")
    (tmp_path / "set/folder.png").mkdir()
    (tmp_path / "set/nowhere.png").symlink_to("x")  # which is said when it is read
    expected = [tmp_path / "set/2.png", tmp_path / "set/linked/1.png", tmp_path / "set/nowhere.png"]
    assert find_inputs([tmp_path / "set"], DataConfig(name="folder", root=".")) == expected
