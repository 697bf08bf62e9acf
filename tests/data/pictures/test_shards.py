"""Pictures in shards: parts, classes, reading, and what is wrong with the files."""

import hashlib
import os
import pickle
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from helpers import folder_config, folder_of_pictures, shard_config, shards_of_folder, write_tar
from trevsnn.data.loading import TensorDataset
from trevsnn.data.pictures import shards as shards_module
from trevsnn.data.pictures.folders import load_folder
from trevsnn.data.pictures.shards import find_shards, load_shards, shard_splits
from trevsnn.errors import RunError, UnreadableError


def sample(key: str, label: int, value: int = 0) -> list[tuple[str, bytes]]:
    return [
        (f"{key}.ppm", b"P6 1 1 255\n" + bytes([value % 256, value // 256, 0])),
        (f"{key}.cls", str(label).encode()),
    ]


def write_shard(path: Path, labels: list[int], first: int = 0) -> None:
    write_tar(path, [m for i, label in enumerate(labels) for m in sample(f"{first + i:05}", label, first + i)])


def test_shards_hold_what_the_folder_holds(folder_and_shards):
    folder, shards = folder_and_shards
    assert sorted(path.name for path in shards.glob("train*")) == [f"train-{i:06}.tar" for i in range(6)]
    for split in ("train", "val"):
        part, twin = load_shards(shard_config(shards), split), load_folder(folder_config(folder), split)
        assert part.about == twin.about
        assert part.labels_N.tolist() == twin.labels_N.tolist()
        for i in reversed(range(40)):
            assert np.array_equal(part.read(i), twin.read(i))
        assert part.shards_N.tolist() == [i // 7 for i in range(40)]
    assert part.name(8) == f"{shards}/val-000001.tar/cat008.png"
    size = (folder / "val" / "cat" / "000.png").stat().st_size
    lines = re.sub(r"SIZE", str(size), "val-000000.tar\tcat000.png\tSIZE\t0\n").encode()
    whole = load_shards(shard_config(shards), "val")
    first = shards_module.Shards(shards, whole._files.shards, whole.classes, np.arange(1))
    assert first.digest() == hashlib.sha256(lines).hexdigest()
    assert whole.digest() == part.digest() != load_shards(shard_config(shards), "train").digest()


def test_the_digest_changes_with_names_labels_and_sizes(tmp_path):
    found = set()
    for labels, first in (([0, 1], 0), ([1, 0], 0), ([0, 1], 5), ([0, 1, 1], 0)):
        for part in ("train", "val"):
            write_shard(tmp_path / f"{part}-0.tar", labels, first)
        found.add(load_shards(shard_config(tmp_path), "train").digest())
    assert len(found) == 4


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train-000000.tar", "train-000001.tar", "val-000000.tar"], {"train": 2, "val": 1}),
        (["imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"], {"train": 1, "val": 1}),
        (["train/00000.tar", "train/00001.tar", "test/0.tar"], {"train": 2, "test": 1}),
        (["data/train-00000-of-00002.tar", "data/valid_0.tar", "Test/test.TAR"], {"train": 1, "val": 1, "test": 1}),
        (["train.tar", "val.tar", ".hidden/x.tar", ".y.tar", "constrained.txt", "train/0.parquet"], {"train": 1, "val": 1}),
    ],
)  # fmt: skip
def test_the_part_of_a_shard_is_a_word_of_its_name(tmp_path, files, expected):
    for file in files:
        write_tar(tmp_path / file, [])
    assert {split: len(paths) for split, paths in find_shards(tmp_path).items()} == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train-0.tar"], r"holds shards of train alone: it needs some of train, and of val or test, such as"),
        (["val-0.tar", "test-0.tar"], r"holds shards of val and test alone: it needs some of train"),
        ([], r"holds no shards: it needs some of train"),
        (
            ["train-0.tar", "0.tar"],
            r"0.tar is of no part by its name and its folder's: one of the words train, val, valid",
        ),
        (["trainval-0.tar"], r"trainval-0.tar is of no part"),
        (["train/val-0.tar"], r"train/val-0.tar is of several parts"),
        (["train-0.tar", "val-0.tar.gz"], r"val-0.tar.gz is compressed, so that no picture .*: unpack it to a .tar"),
        (["train-0.tgz", "val-0.tar"], r"train-0.tgz is compressed"),
    ],
)
def test_bad_folders_are_said(tmp_path, files, message):
    for file in files:
        write_tar(tmp_path / file, [])
    with pytest.raises(RunError, match=message):
        shard_splits(shard_config(tmp_path))


def test_a_shard_of_train_that_is_another_part_s_by_a_link_is_refused(tmp_path):
    write_tar(tmp_path / "train-0.tar", [])
    (tmp_path / "val-0.tar").symlink_to("train-0.tar")
    with pytest.raises(RunError, match=r"val-0.tar and .*train-0.tar are one file, by a link"):
        find_shards(tmp_path)


def test_a_tenth_of_train_is_held_out_where_there_is_no_val(tmp_path):
    folder_of_pictures(tmp_path / "folder", ("train", "test"))
    shards_of_folder(tmp_path / "folder", tmp_path / "shards")
    config = shard_config(tmp_path / "shards")
    assert shard_splits(config) == ["train", "val", "test"]
    parts = {split: load_shards(config, split) for split in shard_splits(config)}
    assert {split: len(part) for split, part in parts.items()} == {"train": 36, "val": 4, "test": 40}
    assert np.bincount(parts["val"].labels_N).tolist() == [2, 2]
    twins = {split: load_folder(folder_config(tmp_path / "folder"), split) for split in ("train", "val")}
    for split, twin in twins.items():  # the same pictures as of the folder, in the order of the shards
        pictures = [np.asarray(parts[split].read(i)).tobytes() for i in range(len(twin))]
        assert sorted(pictures) == sorted(np.asarray(twin.read(i)).tobytes() for i in range(len(twin)))
        assert (np.diff(parts[split].shards_N) >= 0).all()
    shutil.rmtree(tmp_path / "shards" / "cache")
    for shard in (tmp_path / "shards").glob("test*"):
        shard.rename(shard.with_name(shard.name.replace("test", "val")))
    with pytest.raises(RunError, match="has no test shards: evaluate on 'val'"):
        load_shards(config, "test")


def test_classes_are_named_or_counted(tmp_path):
    for part in ("train", "val"):
        write_shard(tmp_path / f"{part}-0.tar", [2, 0, 1, 1])
    assert load_shards(shard_config(tmp_path), "val").classes == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("cat\nDanish dog\ncow\nünused\n", "utf-8")
    assert load_shards(shard_config(tmp_path), "train").classes == ("cat", "Danish dog", "cow", "ünused")
    for text, message in (("cat\ndog\n", r"train-0.tar/00000.ppm has label 2, but there are 2 classes, counted from 0"),
                          ("cat\n\ndog\ncow\n", "classes.txt is empty, or has an empty line"), ("", "is empty"),
                          ("cat\ndog\ncat\n", "classes.txt has a name twice")):  # fmt: skip
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(RunError, match=message):
            load_shards(shard_config(tmp_path), "train")
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\ncow\r\n")
    assert load_shards(shard_config(tmp_path), "train").classes == ("cat", "dog", "cow")
    (tmp_path / "classes.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(RunError, match=r"classes.txt is no text in UTF-8"):
        load_shards(shard_config(tmp_path), "train")
    (tmp_path / "classes.txt").unlink()
    write_shard(tmp_path / "val-1.tar", [0, 3])
    with pytest.raises(RunError, match=r"val-1.tar/00001.ppm has label 3, but there are 3 classes"):
        load_shards(shard_config(tmp_path), "val")
    write_shard(tmp_path / "train-0.tar", [1, 2, 3])
    with pytest.raises(
        RunError, match=r"have labels up to 3, but none is 0: count classes from 0, or give their names"
    ):
        load_shards(shard_config(tmp_path), "train")
    (tmp_path / "train-0.tar").rename(tmp_path / "full.part")
    write_tar(tmp_path / "train-0.tar", [])
    with pytest.raises(RunError, match=r"the shards of train in .* hold no samples"):
        load_shards(shard_config(tmp_path), "val")
    (tmp_path / "full.part").rename(tmp_path / "train-0.tar")
    write_tar(tmp_path / "val-0.tar", [])
    write_tar(tmp_path / "val-1.tar", [])
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(RunError, match=r"val-0.tar and the shards beside it hold no samples"):
        load_shards(shard_config(tmp_path), "val")


def damaged(shards: Path) -> None:
    """The sixth picture of the cats is no picture."""
    file = shards / "train-000000.tar"
    part = load_shards(shard_config(shards), "train")
    offset = part._pictures_N["offset"][5]
    content = bytearray(file.read_bytes())
    content[offset : offset + 8] = b"nopicture"[:8]
    file.write_bytes(content)


def test_a_corrupt_picture_fails_or_is_skipped_and_named(folder_and_shards):
    _, shards = folder_and_shards
    damaged(shards)
    for policy in ("fail", "skip"):
        config = shard_config(shards, on_unreadable=policy)
        dataset = TensorDataset(load_shards(config, "train"), config, 0, timesteps=1, training=True)
        if policy == "fail":
            with pytest.raises(
                UnreadableError, match=r"train-000000.tar/cat005.png cannot be read as a picture .*: replace"
            ):
                dataset[0, 5]
        else:
            _, label, unreadable = dataset[0, 5]
            assert (label, unreadable) == (0, 5)
            assert dataset[0, 4][2] == -1


def test_a_shard_that_changes_or_vanishes_is_said_and_never_skipped(folder_and_shards):
    _, shards = folder_and_shards
    config = shard_config(shards, on_unreadable="skip")
    part = load_shards(config, "train")
    file = shards / "train-000001.tar"
    about = file.stat()
    content = file.read_bytes()
    file.write_bytes(content)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    dataset = TensorDataset(part, config, 0, timesteps=1, training=True)
    with pytest.raises(RunError, match=r"train-000001.tar has changed since the run began: put the old one back"):
        dataset[0, 8]
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert dataset[0, 8][2] == -1
    os.truncate(file, 1024)  # while it is open
    with pytest.raises(RunError, match=r"train-000001.tar has changed since the run began"):
        dataset[0, 9]
    (shards / "train-000002.tar").unlink()
    with pytest.raises(RunError, match=r"train-000002.tar does not exist: has the data folder moved") as raised:
        dataset[0, 15]
    assert not isinstance(raised.value, UnreadableError)


def test_a_truncated_shard_is_said_when_it_is_loaded(folder_and_shards):
    _, shards = folder_and_shards
    os.truncate(shards / "val-000003.tar", 3000)
    with pytest.raises(RunError, match=r"val-000003.tar is cut off"):
        load_shards(shard_config(shards), "val")


def open_files(folder: Path) -> int:
    """How many files in a folder this process has open."""
    return sum(str(folder) in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux says which files are open")
def test_few_of_many_shards_are_open_and_closed_in_the_end(tmp_path):
    for number in range(200):
        write_shard(tmp_path / f"train-{number:03}.tar", [0, 1], 2 * number)
    write_shard(tmp_path / "val-0.tar", [0, 1])
    part = load_shards(shard_config(tmp_path), "train")
    assert open_files(tmp_path) == 0
    values = [part.read(i).getpixel((0, 0)) for i in [*range(400), 0, 1]]
    assert values == [(i % 256, i // 256, 0) for i in [*range(400), 0, 1]]
    assert open_files(tmp_path) == shards_module.OPEN == 32
    other = pickle.loads(pickle.dumps(part))
    assert other.read(399).getpixel((0, 0)) == (143, 1, 0)
    assert open_files(tmp_path) == 33
    del part, other
    assert open_files(tmp_path) == 0


@pytest.mark.parametrize("written", ["sorted", "shuffled", "few"])
def test_shards_sorted_by_class_are_warned_of(tmp_path, written):
    labels = [i // 10 for i in range(400)]
    if written != "sorted":
        np.random.default_rng(0).shuffle(labels)
    size = 40 if written == "few" else 10
    for number in range(400 // size):
        write_shard(tmp_path / f"train-{number:03}.tar", labels[size * number : size * (number + 1)])
    write_shard(tmp_path / "val-0.tar", [0, 1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_shards(shard_config(tmp_path), "train")
    expected = (
        r"hold 1.0 classes each, 8.9 if they were shuffled: items are mixed among 32 shards at a time, so shuffle"
    )
    assert [bool(re.search(expected, str(w.message))) for w in caught] == ([True] if written == "sorted" else [])
