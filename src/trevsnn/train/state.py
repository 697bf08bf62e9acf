"""What changes while a network is trained, and its checkpoints, which hold all of it."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from rich.console import Console
from timm.utils.model_ema import ModelEmaV3
from torch.optim import Optimizer

from trevsnn.data.part import Part
from trevsnn.errors import RunError
from trevsnn.network.encoders import slope_at
from trevsnn.network.model import TRevSNN
from trevsnn.reversible.precision import widest
from trevsnn.run.changes import changes_by_hand
from trevsnn.run.checkpoint import (
    BEST_NAME,
    STEP_NAME,
    checkpoints,
    load_checkpoint,
    read_entry,
    remove_checkpoints,
    save_checkpoint,
)
from trevsnn.run.config import RunConfig
from trevsnn.run.load import load_weights
from trevsnn.terminal import say
from trevsnn.train.guard import StepGuard
from trevsnn.train.moments import load_moments
from trevsnn.train.origin import compare_classes, compare_data, compare_network, compare_origin, data_of, origin_of
from trevsnn.train.report import History
from trevsnn.train.saved import check_state

STEP_CHECKPOINTS = 2  # the one before the latest serves when the latest is damaged


class TrainingState:
    """All that a training changes; whatever else it uses follows from the config and the number of steps.

    Args:
        config: of the run.
        fabric: the run's processes.
        model: the network, without Fabric's wrapper.
        optimizer: of its parameters.
        part: the training part; checkpoints hold what an evaluation must know of it, and by what it is known again.
        val: the held-out part, which is known again likewise.

    Attributes:
        ema: the averaged weights, None without ``ema_decay``.
        scaler: of the loss, None without "16-mixed".
        guard: counts the steps that were skipped.
        step: optimizer steps so far, skipped ones included.
        slope: negative slope of the leaky ReLUs in this epoch.
        loss_sum: sum over the epoch's steps of this process's loss, float64 (float32 on MPS).
        ce_sum: likewise of the plain cross entropy of the last head; NaN where batches are mixed.
        since: those two sums (2,), and the steps taken, since the last row of steps.csv.
        unreadable: items of the epoch that this process could not read.
        history: a row of metrics for each finished epoch.
        saved_at: when the latest checkpoint was written, ``time.monotonic()``.
    """

    def __init__(
        self, config: RunConfig, fabric: Fabric, model: TRevSNN, optimizer: Optimizer, part: Part, val: Part
    ) -> None:
        self.config, self.fabric, self.model, self.optimizer = config, fabric, model, optimizer
        self.part, self.val, self.about = part, val, part.about
        self.ema = None if config.ema_decay is None else ModelEmaV3(model, config.ema_decay, use_warmup=True)
        precision = fabric.strategy.precision
        self.scaler = precision.scaler if isinstance(precision, MixedPrecision) else None
        self.guard = StepGuard(model, config.max_nonfinite, self.scaler)
        self.step = 0
        self.slope = 1.0
        self.loss_sum = torch.zeros((), dtype=widest(fabric.device), device=fabric.device)
        self.ce_sum = torch.zeros_like(self.loss_sum)
        self.since, self.since_taken = torch.zeros_like(self.loss_sum).repeat(2), 0
        self.unreadable = 0
        self.history: History = []
        self._seconds = 0.0
        self.saved_at = self._continued_at = time.monotonic()

    @cached_property  # not needed before the first checkpoint, and the pixels of a set in memory take a while
    def data(self) -> dict[str, Any]:
        """By what the data are known again."""
        return data_of(self.config, self.part, self.val)

    @property
    def origin(self) -> dict[str, Any]:
        """What else the weights depend on."""
        return origin_of(self.config, self.fabric.world_size)

    @property
    def evaluated(self) -> TRevSNN:
        """The network that is evaluated: the averaged one if there is one."""
        model = self.model if self.ema is None else self.ema.module
        assert isinstance(model, TRevSNN)
        return model

    @property
    def seconds(self) -> float:
        """Seconds of training so far, interruptions not counted."""
        return self._seconds + time.monotonic() - self._continued_at

    def set_slope(self, epoch: int) -> None:
        """Give the leaky ReLUs the slope of an epoch, counted from 0."""
        self.slope = slope_at(epoch, self.config.slope_epochs)
        self.model.set_slope(self.slope)
        self.evaluated.set_slope(self.slope)

    def average(self) -> None:
        """Let the averaged weights follow the network's, after an optimizer step.

        They move by the share ``1 - d`` of the way, d being ``ema_decay`` or, with ``ema_warmup``, timm's decay at this step,
        which begins at 0 and grows to it.
        """
        if self.ema is not None:
            self.ema.update(self.model, self.step if self.config.ema_warmup else None)  # without a step: ema_decay

    def count(self, losses: torch.Tensor) -> None:
        """Count a step's loss and cross entropy (2,)."""
        self.loss_sum += losses[0]
        self.ce_sum += losses[1]
        self.since += losses
        self.since_taken += 1

    def begin_epoch(self) -> None:
        """Set what is counted by epoch to 0."""
        for counted in (self.loss_sum, self.ce_sum, self.since):
            counted.zero_()
        self.since_taken = 0
        self.guard.skipped = self.unreadable = 0

    def save(self, folder: Path) -> None:
        """Write everything to ``folder/step-N`` and remove all others but the one before it.

        Raises:
            RunError: it cannot be written; earlier checkpoints are intact.
        """
        weights: dict[str, Any] = {"model": self.model.state_dict()}
        if self.ema is not None:
            weights["ema"] = self.ema.module.state_dict()
        random, device = {"cpu": torch.get_rng_state()}, self.fabric.device.type
        if device != "cpu":
            random[device] = torch.get_device_module(device).get_rng_state()
        state = {
            "step": self.step, "loss_sum": self.loss_sum, "skipped": self.guard.skipped, "in_a_row": self.guard.in_a_row,
            "unreadable": self.unreadable, "history": self.history, "seconds": self.seconds,
            "ce_sum": self.ce_sum, "since": self.since, "since_taken": self.since_taken,
            "optimizer": self.optimizer.state_dict(), "random": random, "data": self.data, "origin": self.origin, **self._for_evaluation(),
        }  # fmt: skip
        if self.scaler is not None:
            state["scaler"] = self.scaler.state_dict()
        saved = folder / STEP_NAME.format(self.step)
        save_checkpoint(saved, weights, state)
        found = checkpoints(folder, "step")
        latest = found.index(saved)  # those of later steps would be gone on from: this run went on from one before them
        remove_checkpoints(found[:latest] + found[latest + STEP_CHECKPOINTS :])
        self.saved_at = time.monotonic()

    def save_best(self, folder: Path, epoch: int) -> None:
        """Write the evaluated weights to ``folder/best-E``, E counted from 1.

        Raises:
            RunError: it cannot be written; earlier checkpoints are intact.
        """
        save_checkpoint(
            folder / BEST_NAME.format(epoch + 1), {"model": self.evaluated.state_dict()}, self._for_evaluation()
        )

    def keep_best(self, folder: Path) -> None:
        """Remove all ``folder/best-E`` but that of the history's best epoch, once the history is saved: a run that went on from
        an earlier step, or from the beginning, left others, of epochs that it made again.

        Raises:
            RunError: one cannot be removed.
        """
        best = max(range(len(self.history)), key=lambda epoch: self.history[epoch]["val_accuracy"])
        remove_checkpoints(path for path in checkpoints(folder, "best") if path.name != BEST_NAME.format(best + 1))

    def restore(self, folder: Path, console: Console) -> dict[str, Any]:
        """Load the latest intact checkpoint of ``folder``; where there is none, leave everything as it is.

        The console is told of damaged checkpoints, which one is used, and what of data, config, versions and processes is no
        longer the same.

        Returns:
            The ``origin`` that it was saved with; empty where that is not known.

        Raises:
            RunError: a checkpoint is of another network, of other classes, or of another number of steps in an epoch.
        """
        saved = checkpoints(folder, "step")
        numbers = sum(tensor.numel() for tensor in self.model.state_dict().values())
        for checkpoint in saved:
            # First of all: for this one its weights may be too large to be read, and it looks damaged.
            compare_network(read_entry(checkpoint, "origin"), self.config, checkpoint)
            try:
                weights, state = load_checkpoint(checkpoint, numbers)
                check_state(state, self.data["steps_per_epoch"], checkpoint)
            except RunError as error:
                say(console, f"{error} Trying the one before it.")
                continue
            changes = self._changes(state)
            self._load(weights, state, checkpoint)
            for line in changes:
                say(console, line)
            say(console, f"going on from {checkpoint.name}, after {len(self.history)} epochs")
            return state.get("origin", {})
        if saved:
            say(console, "no intact checkpoint: starting from the beginning")
        return {}

    def _changes(self, state: dict[str, Any]) -> list[str]:
        """What has changed since a state was saved. Earlier versions did not save what it was made from."""
        about = state.get("about")
        compare_classes(about.get("classes") if isinstance(about, dict) else None, self.about.classes)
        data = compare_data(state["data"], self.data) if "data" in state else []
        by_hand = self._by_hand(state)
        return [*data, *(compare_origin(state["origin"], self.origin, by_hand) if "origin" in state else [])]

    def _by_hand(self, state: dict[str, Any]) -> list[str]:
        return changes_by_hand(state.get("origin", {}).get("config"), self.config)

    def _load(self, weights: dict[str, dict[str, torch.Tensor]], state: dict[str, Any], checkpoint: Path) -> None:
        try:
            load_weights(self.model, weights["model"], checkpoint)
            if self.ema is not None:
                load_weights(self.ema.module, weights["ema"], checkpoint)
            load_moments(self.optimizer, state["optimizer"], self.config.optim.name)
            self._load_random(state["random"])
            if self.scaler is not None and "scaler" in state:
                self.scaler.load_state_dict(state["scaler"])
        except (RunError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            if by_hand := self._by_hand(state):
                raise RunError(
                    f"{checkpoint} does not fit config.yaml, in which was changed: {', '.join(by_hand)}: put these back as "
                    "they were, or begin a new run."
                ) from error
            if isinstance(error, RunError):
                raise
            first = (str(error).splitlines() or [""])[0]
            raise RunError(
                f"the checkpoint {checkpoint} is not of this run ({first}): remove it, or begin a new run."
            ) from error
        self.step, self.history, self._seconds = state["step"], state["history"], state["seconds"]
        self.loss_sum.copy_(state["loss_sum"])
        # Earlier versions did not count it: what is left of such an epoch has none.
        began = torch.tensor(0.0 if self.step % self.data["steps_per_epoch"] == 0 else torch.nan)
        self.ce_sum.copy_(state.get("ce_sum", began))
        self.since.copy_(state.get("since", began))
        self.since_taken = state.get("since_taken", 0)
        self.guard.skipped, self.guard.in_a_row = state["skipped"], state["in_a_row"]
        self.unreadable = state["unreadable"]

    def _load_random(self, random: dict[str, Any]) -> None:
        device = self.fabric.device.type
        torch.set_rng_state(random["cpu"])
        if device != "cpu" and device in random:
            torch.get_device_module(device).set_rng_state(random[device])

    def _for_evaluation(self) -> dict[str, Any]:
        """What evaluating the weights needs besides the config."""
        return {"slope": self.slope, "about": asdict(self.about)}
