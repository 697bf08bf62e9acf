"""Which files are held out by their names."""

import hashlib
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trevsnn.data.held_out import file_number, hashed_split
from trevsnn.errors import RunError

names = st.lists(st.text("abcdefg0123456789é", min_size=1, max_size=6), unique=True, min_size=1, max_size=40)


def parts(names: dict[str, list[str]]) -> tuple[set[str], set[str]]:
    """Training and held-out files of classes; none where a class cannot be split."""
    classes = sorted(names)
    files = [f"{name}/{file}.png" for name in classes for file in sorted(names[name])]
    labels = np.array([classes.index(file.partition("/")[0]) for file in files])
    try:
        train, held_out = hashed_split(files, labels, classes)
    except RunError:
        return set(), set()
    return {files[i] for i in train}, {files[i] for i in held_out}


@given(first=names, later=names, other=names)
def test_files_that_are_added_move_none_from_training_to_those_held_out(first, later, other):
    before = parts({"cat": first, "dog": other})
    after = parts({"cat": sorted({*first, *later}), "dog": other})
    if before[0] and after[0]:
        assert before[0] <= after[0]
        assert not before[0] & after[1]
        for part in (before, after):
            for name in ("cat", "dog"):
                assert all(any(file.startswith(name) for file in files) for files in part)


@given(names, names)
def test_a_class_s_files_do_not_depend_on_other_classes(cat, dog):
    both, alone = parts({"cat": cat, "dog": dog}), parts({"cat": cat})
    if both[0]:
        assert {f for f in both[1] if f.startswith("cat")} == alone[1]


def test_a_tenth_of_each_class_is_held_out_but_for_chance():
    files = [f"{name}/{i}.jpg" for name in ("a", "b") for i in range(4000)]
    train, held_out = hashed_split(files, np.repeat([0, 1], 4000), ("a", "b"))
    shares = [np.mean(held_out < 4000) * len(held_out) / 4000, np.mean(held_out >= 4000) * len(held_out) / 4000]
    assert all(abs(share - 0.1) < 0.015 for share in shares)  # three standard deviations
    assert sorted([*train, *held_out]) == list(range(8000))
    slow = [i for i, f in enumerate(files) if int(hashlib.sha256(f.encode()).hexdigest()[:16], 16) / 2**64 < 0.1]
    assert held_out.tolist() == slow


def test_how_a_system_writes_a_name_is_no_matter():
    assert file_number("café/1.png") == file_number(unicodedata.normalize("NFD", "café/1.png"))
    assert file_number("a\\1.png") == file_number("a/1.png") != file_number("a/2.png")


def test_a_class_that_leaves_none_to_train_on_is_said():
    with pytest.raises(RunError, match="class 'dog' has one picture alone: some are needed to train on"):
        hashed_split(["cat/1", "cat/2", "dog/1"], np.array([0, 0, 1]), ("cat", "dog"))
    low = [f for i in range(1000) if file_number(f := f"cat/{i}") < 0.1][:2]
    with pytest.raises(RunError, match="class 'cat' has 2 pictures, all held out by the hash of their names"):
        hashed_split(low, np.array([0, 0]), ("cat",))
