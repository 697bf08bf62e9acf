"""What may change where an interrupted or ended run goes on: how long it trains, and what says nothing about its results; and
what was changed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trevsnn.errors import UsageError
from trevsnn.run.config import RunConfig, to_dict
from trevsnn.run.options import flatten
from trevsnn.run.places import whole_path
from trevsnn.terminal import visible

LONGEST = 100  # characters of a value that is said

#: Options of a run's config that ``--resume`` takes. The others make other weights of the same steps.
CHANGEABLE = ("epochs", "data.root", "data.cache", "data.workers", "accelerator")


def changed(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A run's config with some of the options ``CHANGEABLE`` changed.

    Args:
        config: of the run.
        changes: values by the options' names, such as ``{"epochs": 20, "data.root": "/data"}``.

    Raises:
        UsageError: an option that cannot be changed, or a value that the config refuses.
    """
    check_changeable(changes)
    try:
        data = {name.removeprefix("data."): value for name, value in changes.items() if name.startswith("data.")}
        own = {name: value for name, value in changes.items() if not name.startswith("data.")}
        data |= {name: whole_path(data[name]) for name in ("root", "cache") if name in data}
        return replace(config, data=replace(config.data, **data), **own)
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_changeable(changes: Mapping[str, Any]) -> None:
    """Raise UsageError where an option, by its name, cannot be changed."""
    others = [f"--{name}" for name in changes if name not in CHANGEABLE]
    if others:
        raise UsageError(
            "--resume goes on with the run's own config; only "
            f"{', '.join(f'--{name}' for name in CHANGEABLE)} can change: leave out {', '.join(others)}."
        )


def differences(before: RunConfig, after: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The values before and after of the options ``CHANGEABLE`` that differ."""
    both = {name: (_value(before, name), _value(after, name)) for name in CHANGEABLE}
    return {name: values for name, values in both.items() if values[0] != values[1]}


def changes_by_hand(saved: object, now: RunConfig) -> list[str]:
    """The options that have another value than when a run was saved, but for ``CHANGEABLE``: "optim.lr 0.1 -> 0.2".

    Args:
        saved: the config of then as plain values, from a file; what is none has no options.
        now: the config of today.
    """
    before = flatten(saved) if isinstance(saved, Mapping) else {}
    return [
        f"{name} {short(before[name])} -> {short(value)}"
        for name, value in flatten(to_dict(now)).items()
        if name not in CHANGEABLE and before.get(name, value) != value
    ]


def short(value: object) -> str:
    """A value of a file as a text for the terminal and for the comments of another file."""
    text = visible(str(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _value(config: RunConfig, name: str) -> Any:
    return getattr(config.data, name[5:]) if name.startswith("data.") else getattr(config, name)
