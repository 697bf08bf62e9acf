"""Pictures in folders: parts, classes, Tiny ImageNet as published."""

import shutil
import tarfile

import numpy as np
import pytest

from conftest import shared_data
from helpers import folder_config, folder_of_pictures, picture
from trevsnn.data.config import DataConfig
from trevsnn.data.pictures.folders import folder_splits, list_pictures, load_folder
from trevsnn.data.sets import load
from trevsnn.errors import RunError


@pytest.mark.parametrize(
    ("parts", "counts"),
    [
        (("train", "val"), {"train": 40, "val": 40}),
        (("train", "test"), {"train": 36, "val": 4, "test": 40}),
        (("train", "val", "test"), {"train": 40, "val": 40, "test": 40}),
    ],
)
def test_parts_of_a_folder(tmp_path, parts, counts):
    folder_of_pictures(tmp_path, parts)
    found = {split: load_folder(folder_config(tmp_path), split) for split in folder_splits(folder_config(tmp_path))}
    assert {split: len(part) for split, part in found.items()} == counts
    names = [part.name(i) for part in found.values() for i in range(len(part))]
    assert len(set(names)) == len(names)
    assert np.bincount(found["val"].labels_N).tolist() == [counts["val"] // 2] * 2
    assert found["train"].classes == ("cat", "dog")
    assert found["val"].digest() == load_folder(folder_config(tmp_path), "val").digest()
    if "test" not in counts:
        with pytest.raises(RunError, match="has no test folder: evaluate on 'val'"):
            load_folder(folder_config(tmp_path), "test")


def test_tiny_imagenet_as_published(tmp_path):
    """train/WNID/images, val/images with a table, and test pictures without labels."""
    for label, wnid in enumerate(("n01", "n02")):
        (tmp_path / "train" / wnid / "images").mkdir(parents=True)
        for i in range(3):
            picture(10 * label + i).save(tmp_path / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
    (tmp_path / "val" / "images").mkdir(parents=True)
    for i in range(4):
        picture(i).save(tmp_path / "val" / "images" / f"val_{i}.JPEG")
    (tmp_path / "val" / "val_annotations.txt").write_text(
        "".join(f"val_{i}.JPEG\t{('n02', 'n01')[i % 2]}\t0\t0\t62\t57\n" for i in range(4))
    )
    (tmp_path / "test" / "images").mkdir(parents=True)
    assert folder_splits(folder_config(tmp_path)) == ["train", "val"]
    part = load_folder(folder_config(tmp_path), "val")
    assert part.labels_N.tolist() == [1, 0, 1, 0]
    assert part.name(2).endswith("val/images/val_2.JPEG")
    assert part.read(0).size == (12, 10)


TABLE = b"0.JPEG\tn01\t0\t0\t62\t57\n1.JPEG\tn02\n\n"
LINE = "line {}: it needs the name of a picture in images, once, a tab and a WNID"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE + b"2.JPEG\n", LINE.format(4)),
        (TABLE.replace(b"\t", b" "), LINE.format(1)),
        (TABLE + b"0.JPEG\tn02\n", LINE.format(4)),
        (TABLE + b"../../train/n01/0.JPEG\tn01\n", LINE.format(4)),
        (b"caf\xe9.JPEG\tn01\n", "cannot be read .*: fetch it again"),
        (b"0.JPEG\tn03\n1.JPEG\tn02\n", "names no picture of n01: every class needs one"),
        (b"", "names no picture of n01, n02: every class needs one"),
    ],
)
def test_a_damaged_table_of_tiny_imagenet_is_said(tmp_path, table, message):
    (tmp_path / "val_annotations.txt").write_bytes(TABLE)
    config = DataConfig(name="tiny-imagenet")
    assert list_pictures(tmp_path, ("n01", "n02"), config).files == ["images/0.JPEG", "images/1.JPEG"]
    (tmp_path / "val_annotations.txt").write_bytes(table)
    with pytest.raises(RunError, match=message):
        list_pictures(tmp_path, ("n01", "n02"), config)


def test_bad_folders_are_said(tmp_path):
    with pytest.raises(
        RunError, match="holds none of the folders train, val and test, and no others: it needs a folder"
    ):
        load_folder(folder_config(tmp_path), "train")
    folder_of_pictures(tmp_path, ("train", "val"))
    shutil.rmtree(tmp_path / "val" / "dog")
    with pytest.raises(RunError, match=r"val/dog holds no file that ends in .jpg"):
        load_folder(folder_config(tmp_path), "val")
    (tmp_path / "val" / "dodo").mkdir()
    with pytest.raises(RunError, match="has a folder 'dodo' that is no class of the training part"):
        load_folder(folder_config(tmp_path), "val")


def test_the_real_tiny_imagenet_has_grey_pictures_and_fixed_parts(tmp_path):
    with tarfile.open(shared_data("tiny-imagenet-20c.tar.gz")) as file:
        file.extractall(tmp_path, filter="data")
    options = DataConfig(name="tiny-imagenet", root=str(tmp_path / "tiny-imagenet-20c"), image_size=64)
    parts = {split: load(options, split, 1) for split in ("train", "val")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 10_000, "val": 1_000}
    assert {split: part.digest()[:12] for split, part in parts.items()} == SPLITS_OF_TINY_IMAGENET
    grey = next(i for i in range(10_000) if parts["train"].name(i).endswith("n02002724_201.JPEG"))
    assert parts["train"].read(grey).mode == "RGB"


SPLITS_OF_TINY_IMAGENET = {"train": "91339adfe8eb", "val": "aeb6f04242de"}
