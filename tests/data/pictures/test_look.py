"""A look at a folder of one's own pictures: its layout, and what is in it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torchvision.datasets.folder

from helpers import folder_config, folder_of_pictures, picture
from trevsnn.data.config import DataConfig
from trevsnn.data.pictures.file import PICTURE_ENDINGS
from trevsnn.data.pictures.folders import folder_splits, load_folder
from trevsnn.data.pictures.look import look_at
from trevsnn.data.pictures.shown import size_warning
from trevsnn.data.sets import load
from trevsnn.errors import RunError, UnreadableError


def test_the_endings_are_those_of_torchvision():
    assert set(PICTURE_ENDINGS) == set(torchvision.datasets.folder.IMG_EXTENSIONS)


def test_class_folders_alone_and_train_alone_hold_out_the_same(tmp_path):
    folder_of_pictures(tmp_path, ("flat", "parts/train"))
    found = []
    for root in (tmp_path / "flat", tmp_path / "parts"):
        config = folder_config(root)
        assert folder_splits(config) == ["train", "val"]
        train, val = (load_folder(config, split) for split in ("train", "val"))
        assert sorted([*train.files, *val.files]) == [f"{c}/{i:03}.png" for c in ("cat", "dog") for i in range(20)]
        assert not set(train.files) & set(val.files)
        assert set(val.labels_N.tolist()) == {0, 1}
        found.append((train.digest(), val.digest()))
        look = look_at(root)
        assert look.classes == ("cat", "dog")
        assert look.pictures == len(train)
        assert len(look.sizes) == len(train)
        assert (look.height, look.width, look.grey) == (10, 12, False)
        assert look.left_out == {}
    assert found[0] == found[1]
    with pytest.raises(RunError, match="has no test folder: evaluate on 'val'"):
        load_folder(folder_config(tmp_path / "flat"), "test")


@pytest.mark.parametrize("parts", [("train", "val"), ("train", "test"), ("train", "val", "test")])
def test_the_look_counts_the_pictures_that_are_trained_on(tmp_path, parts):
    folder_of_pictures(tmp_path, parts)
    assert look_at(tmp_path).pictures == len(load_folder(folder_config(tmp_path), "train"))
    assert look_at(tmp_path).parts == parts


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGB"])
def test_a_folder_is_grey_if_all_of_its_pictures_are(tmp_path, mode):
    folder_of_pictures(tmp_path, ("train", "val"), n=4)
    for path in tmp_path.rglob("*.png"):
        picture(int(path.stem)).convert("L").convert(mode).save(path)
    assert look_at(tmp_path).grey
    picture(1).save(tmp_path / "train" / "dog" / "002.png")
    assert not look_at(tmp_path).grey


def test_what_is_left_out_is_named(tmp_path):
    folder_of_pictures(tmp_path, ("pictures",))
    cat = tmp_path / "pictures" / "cat"
    (cat / "notes.txt").write_text("x")
    (cat / "._000.png").write_bytes(b"x")
    (cat / ".thumbs").mkdir()
    picture(1).save(cat / ".thumbs" / "000.png")
    (cat / "more").mkdir()
    picture(1).save(cat / "more" / "021.png")  # any depth is taken
    (tmp_path / "elsewhere").mkdir()
    picture(1).save(tmp_path / "elsewhere" / "022.png")
    (cat / "linked").symlink_to(tmp_path / "elsewhere")  # is followed
    (cat / "back").symlink_to(tmp_path)
    picture(1).save(tmp_path / "pictures" / "cover.png")
    for name in (".hidden", "__MACOSX"):
        (tmp_path / "pictures" / name).mkdir()
    look = look_at(tmp_path / "pictures")
    assert {reason: [path.name for path in paths] for reason, paths in look.left_out.items()} == {
        "no pictures by the endings of their names": ["notes.txt"],
        "hidden, or left behind by a system, by their names": ["._000.png", ".thumbs", ".hidden", "__MACOSX"],
        "links back to a folder that they lie in": ["back"],
        "pictures outside the class folders": ["cover.png"],
    }
    config = folder_config(tmp_path / "pictures")
    assert sum(len(load_folder(config, split)) for split in ("train", "val")) == 42


def renamed(name: str, other: str) -> Callable[[Path], object]:
    return lambda root: (root / name).rename(root / other)


def loose(root: Path) -> None:
    for path in list(root.rglob("*.png")):
        path.rename(root / f"{path.parent.name}{path.name}")
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()


def one_class(root: Path) -> None:
    for path in (root / "val", root / "train" / "dog"):
        path.rename(root.parent / path.name)


def deeper(root: Path) -> None:
    (root / "set").mkdir()
    for name in ("train", "val"):
        (root / name).rename(root / "set" / name)


def unreadable(root: Path) -> None:
    (root / "train" / "cat" / "000.png").write_bytes(b"no picture")


def broken_link(root: Path) -> None:
    (root / "train" / "cat" / "000.png").unlink()
    (root / "train" / "cat" / "000.png").symlink_to(root / "nowhere.png")


def empty(root: Path) -> None:
    (root / "train" / "emu").mkdir()


WRONG = [
    (renamed("train", "training"), r"training is no part by its name: rename it to train, or move it away"),
    (renamed("val", "valid"), r"valid is no part by its name: rename it to val, or move it away"),
    (renamed("train", "pictures"), "holds val, but no train: it needs train/CLASS"),
    (loose, r"holds 12 pictures but no folders: it needs a folder of pictures for every class"),
    (one_class, r"train holds one class alone, cat: two at least are needed"),
    (deeper, r"holds one folder alone, set: did you mean .*set\?"),
    (empty, r"train/emu holds no file that ends in .jpg, .*: every class needs one"),
    (unreadable, r"cat/000.png cannot be read as a picture \(its format is unknown\): replace it, or remove it"),
    (broken_link, r"cat/000.png is a link that leads nowhere: mend it, or remove it"),
]


@pytest.mark.parametrize(("damage", "message"), WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_a_folder_that_cannot_be_trained_on_is_said(tmp_path, damage, message):
    root = tmp_path / "set"
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(3):
                picture(i).save(root / part / name / f"{part}{i}.png".replace("train", "00"))
    damage(root)
    with pytest.raises((RunError, UnreadableError), match=message):
        look_at(root)


def test_unreadable_pictures_are_passed_over_where_training_does_so(tmp_path):
    folder_of_pictures(tmp_path, ("train", "val"), n=3)
    (tmp_path / "train" / "cat" / "000.png").write_bytes(b"no picture")
    assert len(look_at(tmp_path, skip=True).sizes) == 5
    for path in (tmp_path / "train").rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(
        UnreadableError, match=r"none of the pictures that were looked at can be read, such as .*000\.png"
    ):
        look_at(tmp_path, skip=True)


def test_a_folder_that_is_none_is_said(tmp_path):
    with pytest.raises(RunError, match=r"nowhere is no folder: set data\.root to the folder that holds your pictures"):
        look_at(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (4, r"pictures of about 10 x 12 \(height x width\) are shown at 4 x 4, shrunk to 1/2.5: "),
        (5, None),
        (20, None),
        (25, r"are shown at 25 x 25, enlarged 2.5 times: "),
    ],
)
def test_pictures_at_less_than_half_or_more_than_twice_their_size_are_warned_of(tmp_path, size, expected):
    folder_of_pictures(tmp_path, ("train",), n=3)
    config = folder_config(tmp_path, image_size=size)
    (tmp_path / "train" / "cat" / "001.png").write_bytes(b"no picture")  # training says so
    warning = size_warning(load_folder(config, "train"), config)
    assert (warning is None) if expected is None else re.search(expected, str(warning))


def test_pictures_in_memory_are_warned_of_as_well():
    config = DataConfig(image_size=32)
    assert "pictures of about 8 x 8 (height x width) are shown at 32 x 32, enlarged 4.0 times" in str(
        size_warning(load(config, "train", 1), config)
    )


def test_folders_beside_the_parts_are_named(tmp_path):
    """A class that is called train, say, among other classes."""
    folder_of_pictures(tmp_path, ("train", "bus/near"))
    (tmp_path / "notes").mkdir()
    assert look_at(tmp_path).left_out == {"folders beside train, which are no parts": [tmp_path / "bus"]}


def test_a_part_in_two_spellings_is_refused(tmp_path):
    folder_of_pictures(tmp_path, ("train", "Train", "val"))
    for read in (look_at, lambda root: load_folder(folder_config(root), "train")):
        with pytest.raises(RunError, match="holds both Train and train: put them together, or move one away"):
            read(tmp_path)
