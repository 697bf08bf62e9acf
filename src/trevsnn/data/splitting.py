"""How parts are cut from a data set that lacks them; every rule gives the same parts each time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trevsnn.data.config import Split
from trevsnn.errors import RunError

SPLIT_SEED = 0  # never a run's seed: the split is part of a data set's definition


def stratified_split(labels_N: NDArray[Any], held_out: float | int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out items at random, of every class the same share.

    Args:
        labels_N: of all items.
        held_out: a share in 0..1, or a number of items.

    Returns:
        Indices of the training items and of those held out.

    Raises:
        RunError: too few items of some class.
    """
    from sklearn.model_selection import train_test_split  # it takes a second to load

    try:
        parts = train_test_split(
            np.arange(len(labels_N)), test_size=held_out, random_state=SPLIT_SEED, stratify=labels_N
        )
    except ValueError as error:
        raise RunError(
            f"no validation part can be cut from {len(labels_N)} training items ({error}): add items, or say which are for validation, by a "
            "part val."
        ) from error
    return np.asarray(parts[0]), np.asarray(parts[1])


def ordered_split(labels_N: NDArray[np.int64], classes: Sequence[str]) -> dict[Split, NDArray[np.int64]]:
    """Of each class, in the order given: the last tenth for test, the tenth before for validation, the rest to train.

    The rule for sets without official split. The test part is that of SpikingJelly's ``split_to_train_test_set(0.9)``
    on files in the same order; validation is cut from the rest.

    Returns:
        Indices by part.

    Raises:
        RunError: a class has fewer than three items.
    """
    by_class: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels_N.tolist()):
        by_class[label].append(index)
    parts: dict[Split, list[int]] = {"train": [], "val": [], "test": []}
    for label, indices in sorted(by_class.items()):
        tenth = max(1, len(indices) // 10)
        if len(indices) <= 2 * tenth:
            raise RunError(
                f"class {classes[label]!r} has {len(indices)} of the three recordings that are needed for training, validation "
                "and test: add some; or cut them into pieces, data.piece_ms; or say which is of which part, by folders "
                "train/CLASS and val/CLASS, or by a column part of labels.csv."
            )
        parts["train"] += indices[: -2 * tenth]
        parts["val"] += indices[-2 * tenth : -tenth]
        parts["test"] += indices[-tenth:]
    return {split: np.asarray(indices, np.int64) for split, indices in parts.items()}


def time_split(recordings: Sequence[str]) -> dict[Split, NDArray[np.int64]]:
    """Of each recording's pieces, in the order of time: the first 70 % to train, the next 15 % for validation, the rest for test.

    The rule for pieces of recordings without official split. At random, pieces that touch would come into different parts.
    Of n pieces those before ``70 n // 100`` and ``85 n // 100`` are the first two parts, moved so that each has one piece.

    Args:
        recordings: for each piece the recording that it is of, pieces of one recording one after the other.

    Returns:
        Indices by part.

    Raises:
        RunError: a recording has fewer than three pieces.
    """
    parts: dict[Split, list[int]] = {"train": [], "val": [], "test": []}
    for recording, group in groupby(range(len(recordings)), key=recordings.__getitem__):
        pieces = list(group)
        n = len(pieces)
        if n < 3:
            raise RunError(
                f"{recording} has {n} of the pieces of data.piece_ms: three are needed, for training, validation and test; "
                "lower data.piece_ms."
            )
        test = min(85 * n // 100, n - 1)
        val = min(70 * n // 100, test - 1)
        parts["train"] += pieces[:val]
        parts["val"] += pieces[val:test]
        parts["test"] += pieces[test:]
    return {split: np.asarray(indices, np.int64) for split, indices in parts.items()}
