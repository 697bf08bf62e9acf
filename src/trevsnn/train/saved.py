"""The state of a checkpoint, checked before it is used: somebody else may have written it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from trevsnn.run.folder import is_number
from trevsnn.run.load import read_slope

#: The names of a row of metrics.
COLUMNS = re.compile(
    r"epoch|step|train_loss|train_ce|val_loss|val_accuracy|lr|seconds|skipped_steps|unreadable|rate_level\d{1,2}"
    r"|rate_hidden\d{1,2}_[12]"
)
NEEDED = {"epoch", "step", "train_loss", "val_loss", "val_accuracy", "lr", "seconds", "skipped_steps", "unreadable"}


def check_state(state: Mapping[str, Any], steps_per_epoch: int) -> None:
    """Check the types and ranges of what :meth:`trevsnn.train.state.TrainingState.save` writes.

    Args:
        state: of a checkpoint.
        steps_per_epoch: of its run.

    Raises:
        ValueError: one is another; says which.
    """
    for name in ("step", "skipped", "in_a_row", "unreadable"):
        _whole(name, state.get(name))
    _whole("since_taken", state.get("since_taken", 0))
    read_slope(state.get("slope"))
    if not is_number(state.get("seconds")) or not 0 <= state["seconds"] < float("inf"):
        raise ValueError(f"seconds is {state.get('seconds')!r}")
    for name, shape in (("loss_sum", ()), ("ce_sum", ()), ("since", (2,))):
        known = name in state or name == "loss_sum"  # earlier versions have that alone
        if known and (not isinstance(state.get(name), Tensor) or state[name].shape != shape):
            raise ValueError(f"{name} is no tensor of shape {shape}")
    for name in ("optimizer", "random"):
        if not isinstance(state.get(name), dict):
            raise ValueError(f"{name} is missing")
    check_history(state.get("history"))
    # At a checkpoint within the evaluation that ends an epoch, that epoch has no row yet.
    if not 0 <= state["step"] - len(state["history"]) * steps_per_epoch <= steps_per_epoch:
        raise ValueError(f"{len(state['history'])} epochs of {steps_per_epoch} steps do not make step {state['step']}")
    for name in ("data", "origin"):
        if not isinstance(state.get(name, {}), dict):
            raise ValueError(f"{name} is no object")


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
        if strange:
            raise ValueError(
                f"row {number} of the history holds {str(strange[0])[:50]!r}, or something else than a number"
            )


def _whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ValueError(f"{name} is {str(value)[:50]!r}")
