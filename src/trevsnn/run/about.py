"""What a file says of a network's data, checked: somebody else may have written it."""

from __future__ import annotations

import math
from typing import Any

from trevsnn.data.part import About
from trevsnn.network.config import TRevSNNConfig
from trevsnn.run.folder import is_number

LONGEST = 1000  # characters of a class's name
LEAST_STD = 1e-9  # of pixels in 0..1, whose least difference is 1.5e-5; of what is less float32 may make 0


def read_about(plain: Any, network: TRevSNNConfig) -> About:
    """The fields of :class:`trevsnn.data.part.About`.

    Args:
        plain: as they stand in JSON.
        network: that was trained on the data.

    Raises:
        ValueError: a field is missing, of another type, or not that of such a network.
    """
    if not isinstance(plain, dict) or plain.keys() != {"classes", "channels", "mean", "std"}:
        raise ValueError("of the data it does not give classes, channels, mean and std")
    classes = read_classes(plain["classes"])
    if network.num_classes not in (0, len(classes)):
        raise ValueError(f"it names {len(classes)} classes, and the network has {network.num_classes}")
    channels = plain["channels"]
    if not is_number(channels) or channels != network.in_chans:
        raise ValueError(f"channels is {channels!r}, and the network takes {network.in_chans}")
    for name in ("mean", "std"):
        values = plain[name]
        sound = isinstance(values, list | tuple) and len(values) == channels
        if not sound or not all(is_number(value) and math.isfinite(value) for value in values):
            raise ValueError(f"{name} is not a finite number for each of {channels} channels")
    if not all(value >= LEAST_STD for value in plain["std"]):
        raise ValueError(f"std is not at least {LEAST_STD}")
    return About(classes, int(channels), tuple(map(float, plain["mean"])), tuple(map(float, plain["std"])))


def read_classes(plain: Any) -> tuple[str, ...]:
    """Names of classes as they stand in JSON.

    Raises:
        ValueError: they are no list of different texts.
    """
    named = isinstance(plain, list | tuple) and all(isinstance(name, str) and len(name) <= LONGEST for name in plain)
    if not named or len(set(plain)) < len(plain):
        raise ValueError(f"classes are no different names of at most {LONGEST} characters")
    return tuple(plain)
