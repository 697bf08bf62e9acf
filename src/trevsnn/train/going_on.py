"""A run that goes on with a changed config: what that does to its schedule, said and written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console

from trevsnn.errors import UsageError
from trevsnn.run.changes import changes_by_hand, differences
from trevsnn.run.config import RunConfig
from trevsnn.run.folder import RunFolder
from trevsnn.terminal import say
from trevsnn.train.optim import rate_of_step


def take_changes(
    folder: RunFolder, config: RunConfig, saved: Mapping[str, Any], step: int, steps_per_epoch: int, console: Console,
    write: bool,
) -> None:  # fmt: skip
    """Say what differs between a run's config.yaml and the config that it goes on with, and write that down in config.yaml; what
    was changed by hand in config.yaml since the run was saved, too.

    Args:
        folder: of the run.
        config: that it goes on with.
        saved: origin of the checkpoint that it goes on from (:func:`trevsnn.train.origin.origin_of`); empty for none.
        step: training steps so far.
        steps_per_epoch: of the run.
        console: is told.
        write: whether this process writes.

    Raises:
        UsageError: more epochs are done, or begun, than the run is to have.
        RunError: config.yaml cannot be written.
    """
    before = _epochs_of(saved, folder.read_config())
    begun = -(-step // steps_per_epoch)
    if config.epochs < begun:
        raise UsageError(f"epochs is {config.epochs}, but the run is in epoch {begun} already: give {begun} at least.")
    by_hand = changes_by_hand(saved.get("config"), config)
    known = folder.notes()
    notes = [note for change in by_hand if (note := f"after step {step}: {change}, by hand") not in known]
    for name, (old, new) in differences(before, config).items():
        note = f"after step {step}: {name} {old} -> {new}"
        if name == "epochs":
            rates = [rate_of_step(c, step, steps_per_epoch) for c in (before, config)]
            note += f"; the learning rate of step {step + 1} is {rates[1]:.3g} instead of {rates[0]:.3g}"
            say(
                console,
                f"{new} epochs instead of {old}: from step {step + 1} on the learning rate is that of a cosine over {new} "
                f"epochs, {rates[1]:.3g} instead of {rates[0]:.3g}; the warm-up stays as it was",
            )  # fmt: skip
        notes.append(note)
    if notes and write:
        folder.change_config(config, notes)


def _epochs_of(saved: Mapping[str, Any], config: RunConfig) -> RunConfig:
    """The config with the epochs of a checkpoint's, which somebody may have changed by hand since."""
    epochs = saved.get("config", {}).get("epochs", config.epochs)
    try:
        return config if epochs == config.epochs else replace(config, epochs=epochs)
    except (ValueError, TypeError):  # no epochs of a run
        return config
