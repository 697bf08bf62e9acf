"""Which classes are taken for which, beside scikit-learn."""

import csv

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from trevsnn.deploy.confusion import class_rows, confusion_files, confusion_picture, write_confusion
from trevsnn.errors import UsageError

NAMES = ["cat, tabby", 'a "dog"', "$x_{$", "\x1b[2J日本", "[/b]"]


def matrix(classes: int = 5, items: int = 200) -> np.ndarray:
    dice = np.random.default_rng(0)
    return confusion_matrix(dice.integers(0, classes, items), dice.integers(0, classes, items), labels=range(classes))


def test_rows_are_scikit_learn_s():
    dice = np.random.default_rng(1)
    labels, found = dice.integers(0, 4, 60), dice.integers(1, 5, 60)  # nothing is of class 4 or taken for class 0
    rows = class_rows(NAMES, confusion_matrix(labels, found, labels=range(5)))
    precision, recall, _, items = precision_recall_fscore_support(labels, found, labels=range(5), zero_division=np.nan)
    for row, p, r, n in zip(rows, precision, recall, items, strict=True):
        assert row["items"] == n
        assert row["precision"] == (None if np.isnan(p) else p)
        assert row["recall"] == (None if np.isnan(r) else r)
    assert (rows[0]["precision"], rows[4]["recall"], rows[4]["mistaken_for"]) == (None, None, None)


def test_the_class_it_is_most_often_taken_for():
    rows = class_rows(["a", "b", "c"], np.array([[5, 1, 2], [0, 3, 0], [4, 4, 0]]))
    assert [(row["mistaken_for"], row["mistaken"]) for row in rows] == [("c", 2), (None, 0), ("a", 4)]


def test_the_csv_has_names_and_numbers(tmp_path):
    found = matrix()
    assert write_confusion(tmp_path / "new" / "conf", NAMES, found.tolist(), "run") == [
        tmp_path / "new" / "conf" / name for name in ("confusion.csv", "confusion.png")
    ]
    with (tmp_path / "new" / "conf" / "confusion.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["class", *NAMES]
    assert [line[0] for line in lines] == NAMES
    assert np.array_equal(np.array([line[1:] for line in lines], int), found)
    assert [p.name for p in (tmp_path / "new" / "conf").iterdir() if p.name.startswith(".")] == []
    with Image.open(tmp_path / "new" / "conf" / "confusion.png") as picture:
        assert picture.format == "PNG"


def test_one_file_alone(tmp_path):
    for name in ("a.csv", "b.PNG"):
        assert write_confusion(tmp_path / name, NAMES, matrix().tolist(), "run") == [tmp_path / name]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "b.PNG"]
    (tmp_path / "c.csv").mkdir()  # a folder is one, whatever its name
    write_confusion(tmp_path / "c.csv", NAMES, matrix().tolist(), "run")
    assert (tmp_path / "c.csv" / "confusion.csv").is_file()
    with pytest.raises(
        UsageError, match=r"a.csv/conf cannot be made .*: give a folder, or a file that ends in .csv or .png"
    ):
        write_confusion(tmp_path / "a.csv" / "conf", NAMES, matrix().tolist(), "run")


@pytest.mark.parametrize("classes", [2, 20, 21, 100])
def test_every_class_has_its_name_in_the_picture_and_every_square_its_colour(classes):
    names = [f"class {i}" for i in range(classes)]
    found = matrix(classes, 50 * classes)
    axes, _ = confusion_picture(names, found, "run").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    shares = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shares, confusion_shares(found))
    numbers = sum(int(text.get_text()) for text in axes.texts)
    assert numbers == (found.sum() if classes <= 20 else 0)
    inches = axes.figure.get_size_inches()
    assert max(inches) < 30
    assert 72 * min(inches) / classes > 6.5  # points of a line, and a name's height


def confusion_shares(found: np.ndarray) -> np.ndarray:
    return found / found.sum(1, keepdims=True)


def test_a_place_of_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"conf\.jpg is neither a folder nor a file that ends in \.csv or \.png"):
        confusion_files(tmp_path / "conf.jpg")
    assert list(tmp_path.iterdir()) == []
    assert confusion_files(tmp_path / "run.v1") == (
        tmp_path / "run.v1/confusion.csv",
        tmp_path / "run.v1/confusion.png",
    )
