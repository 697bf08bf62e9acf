"""What a checkpoint was made from: config, data, versions, processes; and what of that is another when its run goes on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import timm
import torch

from trevsnn.data.part import Part
from trevsnn.errors import RunError
from trevsnn.run.changes import CHANGEABLE
from trevsnn.run.config import RunConfig, to_dict
from trevsnn.run.options import flatten
from trevsnn.terminal import visible

LONGEST = 100  # characters of a value that is said


def data_of(config: RunConfig, train: Part, val: Part) -> dict[str, Any]:
    """By what the data of a run are known again."""
    return {
        "sha256": train.digest(), "val_sha256": val.digest(), "steps_per_epoch": len(train) // config.batch_size,
    }  # fmt: skip


def origin_of(config: RunConfig, processes: int) -> dict[str, Any]:
    """What else the weights of a run depend on."""
    return {
        "config": to_dict(config), "processes": processes,
        "versions": {
            "trevsnn": version("trevsnn"), "torch": torch.__version__, "timm": timm.__version__,
            "python": platform.python_version(),
        },
    }  # fmt: skip


def compare_data(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Sentences on what has changed of a run's data, both of :func:`data_of`.

    Raises:
        RunError: an epoch has another number of steps.
    """
    if saved["steps_per_epoch"] != now["steps_per_epoch"]:
        raise RunError(
            f"the training data make {now['steps_per_epoch']} steps an epoch, but made {saved['steps_per_epoch']} when the "
            "run was saved: put them, or the batch_size, back as they were, or begin a new run."
        )
    said = []
    if saved["sha256"] != now["sha256"]:
        said.append(
            "warning: the training data have changed since the run was saved: it goes on, but not to the weights that it "
            "would have had."
        )
    if saved.get("val_sha256", now["val_sha256"]) != now["val_sha256"]:  # earlier versions did not save it
        said.append(
            "warning: the held-out data have changed since the run was saved: accuracies before and after are of different "
            "items."
        )
    return said


def compare_origin(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Sentences on what differs between two of :func:`origin_of`, but for what may change (``CHANGEABLE``)."""
    said = [
        f"warning: {note} since the run was saved: it goes on, but not to the weights that it would have had."
        for note in config_changes(saved, now)
    ]
    others = {"processes": now["processes"], **now["versions"]}
    before = {"processes": saved.get("processes"), **saved.get("versions", {})}
    differing = [
        f"{name} {_short(before[name])} -> {_short(new)}"
        for name, new in others.items()
        if before.get(name, new) != new
    ]
    if differing:
        said.append(
            f"since the run was saved: {', '.join(differing)}; weights may differ in their last digits from those of a run "
            "without that change"
        )
    return said


def config_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The options that have another value than when a run was saved: "optim.lr 0.1 -> 0.2"."""
    before, after = (flatten(origin["config"]) for origin in (saved, now))
    return [
        f"{name} {_short(before[name])} -> {_short(value)}"
        for name, value in after.items()
        if name not in CHANGEABLE and before.get(name, value) != value
    ]


def _short(value: object) -> str:
    text = visible(str(value))  # it comes from a file, and goes into the comments of another
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
