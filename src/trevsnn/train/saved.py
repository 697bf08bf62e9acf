"""The state of a checkpoint, checked before it is used: somebody else may have written it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trevsnn.errors import RunError
from trevsnn.run.checkpoint import STEP_NAME
from trevsnn.run.folder import is_number
from trevsnn.run.load import read_slope

#: The names of a row of metrics.
COLUMNS = re.compile(
    r"epoch|step|train_loss|train_ce|val_loss|val_accuracy|lr|seconds|skipped_steps|unreadable|rate_level[0-9]{1,2}"
    r"|rate_hidden[0-9]{1,2}_[12]"
)
NEEDED = {"epoch", "step", "train_loss", "val_loss", "val_accuracy", "lr", "seconds", "skipped_steps", "unreadable"}


def check_state(state: Mapping[str, Any], steps_per_epoch: int, checkpoint: Path) -> None:
    """Check the types and ranges of what :meth:`trevsnn.train.state.TrainingState.save` writes.

    Args:
        state: of a checkpoint.
        steps_per_epoch: of its run, where the state does not say it, as those of earlier versions.
        checkpoint: for the message.

    Raises:
        RunError: one is another; says which.
    """
    try:
        _check_counts(state)
        _check_tensors(state)
        if checkpoint.name != STEP_NAME.format(state["step"]):
            raise ValueError(f"it is of step {state['step']}")
        check_history(state.get("history"))
        steps = _check_origin(state, steps_per_epoch)
        # At a checkpoint within the evaluation that ends an epoch, that epoch has no row yet.
        if not 0 <= state["step"] - len(state["history"]) * steps <= steps:
            raise ValueError(f"{len(state['history'])} epochs of {steps} steps do not make step {state['step']}")
    except ValueError as error:
        raise RunError(f"the checkpoint {checkpoint} is damaged ({error}): remove it, or use another.") from error


def _check_counts(state: Mapping[str, Any]) -> None:
    for name in ("step", "skipped", "in_a_row", "unreadable"):
        _whole(name, state.get(name))
    _whole("since_taken", state.get("since_taken", 0))
    read_slope(state.get("slope"))
    if not is_number(state.get("seconds")) or not 0 <= state["seconds"] < math.inf:
        raise ValueError(f"seconds is {str(state.get('seconds'))[:50]!r}")


def _check_tensors(state: Mapping[str, Any]) -> None:
    for name, shape in (("loss_sum", ()), ("ce_sum", ()), ("since", (2,))):
        known = name in state or name == "loss_sum"  # earlier versions have that alone
        if known and (not isinstance(state.get(name), Tensor) or state[name].shape != shape):
            raise ValueError(f"{name} is no tensor of shape {shape}")
    for name in ("optimizer", "random"):
        if not isinstance(state.get(name), dict):
            raise ValueError(f"{name} is missing")


def _check_origin(state: Mapping[str, Any], steps_per_epoch: int) -> int:
    """Check what a state says of its data and its origin; the steps of an epoch."""
    data = state.get("data", {"sha256": "", "steps_per_epoch": steps_per_epoch})
    if not isinstance(data, dict) or not {"sha256", "steps_per_epoch"} <= data.keys():
        raise ValueError("data is not what is known of data")
    _whole("steps_per_epoch", data["steps_per_epoch"])
    origin = state.get("origin", {"config": {}, "versions": {}})
    if not isinstance(origin, dict) or not all(isinstance(origin.get(name), dict) for name in ("config", "versions")):
        raise ValueError("origin is not what a run is made from")
    return max(1, data["steps_per_epoch"])


def check_history(history: Any) -> None:
    """Check that a history is one row of numbers after the other, of the names that rows have.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(history, list):
        raise ValueError("history is no list")
    for number, row in enumerate(history, start=1):
        if not isinstance(row, dict) or not row.keys() >= NEEDED or row["epoch"] != number:
            raise ValueError(f"row {number} of the history is none")
        strange = [name for name in row if not isinstance(name, str) or not COLUMNS.fullmatch(name)]
        strange += [name for name, value in row.items() if not is_number(value)]
        strange += [name for name in ("skipped_steps", "unreadable") if not strange and not 0 <= row[name] < 2**53]
        if strange:
            raise ValueError(
                f"row {number} of the history holds {str(strange[0])[:50]!r}, or something else than a number"
            )


def _whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ValueError(f"{name} is {str(value)[:50]!r}")
