"""How parts are cut from a data set that lacks them; every rule gives the same parts each time."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

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
    try:
        parts = train_test_split(
            np.arange(len(labels_N)), test_size=held_out, random_state=SPLIT_SEED, stratify=labels_N
        )
    except ValueError as error:
        raise RunError(f"no validation part can be cut from {len(labels_N)} training items ({error}).") from error
    return np.asarray(parts[0]), np.asarray(parts[1])


def ordered_split(labels_N: NDArray[np.int64]) -> dict[Split, NDArray[np.int64]]:
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
                f"class {label} has {len(indices)} items: three are needed for training, validation and test."
            )
        parts["train"] += indices[: -2 * tenth]
        parts["val"] += indices[-2 * tenth : -tenth]
        parts["test"] += indices[-tenth:]
    return {split: np.asarray(indices, np.int64) for split, indices in parts.items()}
