"""What a checkpoint was made from: config, data, versions, processes; and what of that is another when its run goes on."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from trevsnn.data.part import Part
from trevsnn.errors import RunError, listed
from trevsnn.network.config import CIRCUMSTANCES
from trevsnn.run.changes import changes_by_hand, short
from trevsnn.run.config import RunConfig, to_dict
from trevsnn.version import __version__


def data_of(config: RunConfig, train: Part, val: Part) -> dict[str, Any]:
    """By what the data of a run are known again."""
    return {
        "sha256": train.digest(), "val_sha256": val.digest(), "steps_per_epoch": len(train) // config.batch_size,
        "sizes": train.sizes_digest(), "val_sizes": val.sizes_digest(),
    }  # fmt: skip


def origin_of(config: RunConfig, processes: int) -> dict[str, Any]:
    """What else the weights of a run depend on."""
    return {
        "config": to_dict(config), "processes": processes,
        "versions": {
            "trevsnn": __version__, "torch": torch.__version__, "timm": timm.__version__,
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
    # Earlier versions saved the hash of the training data alone.
    if any(saved.get(name, now[name]) != now[name] for name in ("sha256", "sizes")):
        said.append(
            "warning: the training data have changed since the run was saved: it goes on, but not to the weights that it "
            "would have had."
        )
    if any(saved.get(name, now[name]) != now[name] for name in ("val_sha256", "val_sizes")):
        said.append(
            "warning: the held-out data have changed since the run was saved: accuracies before and after are of different "
            "items."
        )
    return said


def compare_network(saved: object, config: RunConfig, checkpoint: Path) -> None:
    """Check that a checkpoint is of the network that its run's config describes now.

    Args:
        saved: of :func:`origin_of`, as it stands in the checkpoint; what is none says nothing.
        config: of the run.
        checkpoint: for the message.

    Raises:
        RunError: it is of another, which has nothing to go on from.
    """
    before = saved.get("config") if isinstance(saved, dict) else None
    how = {f"model.{name}" for name in CIRCUMSTANCES}  # a network is computed, which it does not depend on
    changes = [
        change
        for change in changes_by_hand(before, config)
        if change.startswith("model.") and change.split()[0] not in how
    ]
    if changes:
        raise RunError(
            f"{checkpoint} is of another network than config.yaml describes ({', '.join(changes)}): put these back as they "
            "were, or begin a new run."
        )


def compare_classes(saved: object, now: Sequence[str]) -> None:
    """Check that the outputs of a network stand for the classes that they were trained for.

    Args:
        saved: the classes in a checkpoint; what is no list says nothing.
        now: those of the training data, as many.

    Raises:
        RunError: they do not.
    """
    before = [str(name) for name in saved] if isinstance(saved, list | tuple) else list(now)
    others = [f"{short(old)} -> {short(new)}" for old, new in zip(before, now, strict=False) if old != new]
    if others:
        raise RunError(
            f"the training data have other classes than when the run was saved: {listed(others)}, in their order: put "
            "the data back as they were, or begin a new run."
        )


def compare_origin(saved: Mapping[str, Any], now: Mapping[str, Any], by_hand: Sequence[str]) -> list[str]:
    """Sentences on what differs between two of :func:`origin_of`; of their configs, what was changed by hand."""
    said = [
        f"warning: {note} since the run was saved: it goes on, but not to the weights that it would have had."
        for note in by_hand
    ]
    others = {"processes": now["processes"], **now["versions"]}
    before = {"processes": saved.get("processes"), **saved.get("versions", {})}
    differing = [
        f"{name} {short(before[name])} -> {short(new)}" for name, new in others.items() if before.get(name, new) != new
    ]
    if differing:
        said.append(
            f"since the run was saved: {', '.join(differing)}; weights may differ in their last digits from those of a run "
            "without that change"
        )
    return said
