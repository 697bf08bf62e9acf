"""Which files are held out of training by their names alone, where a folder has no parts."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trevsnn.errors import RunError

SHARE = 0.1  # of the files of each class, in the mean


def hashed_split(
    files: Sequence[str], labels_N: NDArray[np.int64], classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out the files of each class whose number is below a tenth, or the one with the lowest.

    A file's number is a hash of its relative path, even over 0..1. So each class has the same share but for chance, and a
    file's place does not depend on the others: files that are added later move no file from training to those held out. No
    rule can do so with the same exact share of every class. Only the one that was held out for want of others may move, to
    training.

    Args:
        files: paths, relative to the folder that holds the class folders.
        labels_N: their classes.
        classes: names of the classes.

    Returns:
        Indices of the training files and of those held out, each rising.

    Raises:
        RunError: no file of a class is left to train on.
    """
    numbers_N = np.array([file_number(file) for file in files])
    held_out_N = numbers_N < SHARE
    for label, name in enumerate(classes):
        own = np.flatnonzero(labels_N == label)
        if not held_out_N[own].any():
            held_out_N[own[numbers_N[own].argmin()]] = True
        if held_out_N[own].all():
            few = (
                "one picture alone"
                if len(own) == 1
                else f"{len(own)} pictures, all held out by the hash of their names"
            )
            raise RunError(f"class {name!r} has {few}: some are needed to train on, and one for validation; add more.")
    return np.flatnonzero(~held_out_N), np.flatnonzero(held_out_N)


def file_number(file: str) -> float:
    """A number in 0..1 that depends on a relative path alone, and not on how a system writes accents or separators."""
    plain = unicodedata.normalize("NFC", file.replace("\\", "/")).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(plain).digest()[:8]) / 2**64
