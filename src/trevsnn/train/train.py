"""Training on Lightning Fabric, resumable to the bit at any step."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric, seed_everything
from rich.console import Console
from timm.utils.distributed import distribute_bn
from torch import Tensor
from torch.utils.data import DataLoader

from trevsnn.data.config import Split
from trevsnn.data.loading import TensorDataset, batches, loading_deaths, make_loader
from trevsnn.data.part import Part
from trevsnn.data.sampling import EpochSampler
from trevsnn.data.sets import load, splits
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.model import TRevSNN
from trevsnn.network.norm import share_statistics
from trevsnn.network.slicing import fast_format
from trevsnn.network.start import published_start
from trevsnn.run.checkpoint import checkpoints
from trevsnn.run.config import RunConfig
from trevsnn.run.folder import RunFolder
from trevsnn.terminal import say
from trevsnn.train.evaluate import evaluate, evaluation_loader, place_inputs
from trevsnn.train.fit import check_device, check_fit
from trevsnn.train.guard import rate_warnings
from trevsnn.train.optim import build_optimizer
from trevsnn.train.processes import local_batch, make_fabric
from trevsnn.train.report import TensorBoard, epoch_line, progress_bar, write_metrics
from trevsnn.train.state import TrainingState
from trevsnn.train.step import Stepper
from trevsnn.train.summary import summarise, write_summary

Build = Callable[[TRevSNNConfig], TRevSNN]
EARLY_LOOK = 100  # steps after which the firing rates are checked for the first time


def train(config: RunConfig, run: Path, console: Console, build: Build = TRevSNN) -> dict[str, Any]:
    """Begin a run in a new folder and train it to its end.

    Under torchrun or SLURM every process calls this; the first one writes.

    Args:
        config: of the run.
        run: its folder, new or empty.
        console: for progress.
        build: makes the network from ``config.model``: yours, if you changed it.

    Returns:
        The content of summary.json.

    Raises:
        UsageError: model, batch size and data do not fit together, the folder is in use, or the accelerator is missing.
        RunError: files are missing or damaged, a file cannot be written, a loading process died, or gradients stayed
            not finite.
    """
    return _Training(config, run, console, build, new=True).run_to_end()


def resume(run: Path, console: Console, build: Build = TRevSNN) -> dict[str, Any]:
    """Go on with an interrupted run to its end, from its latest intact checkpoint, or from the beginning.

    The weights are a function of the config, the machine, the number of processes and the versions alone: it does not
    matter how often, and where, the training was interrupted.

    Args:
        run: the run's folder.
        console: for progress.
        build: as the run was begun with.

    Returns:
        The content of summary.json.

    Raises:
        UsageError, RunError: as :func:`train`; and RunError if there is no such run.
    """
    folder = RunFolder.open(run)
    folder.checkpoints.mkdir(exist_ok=True)
    if not checkpoints(folder.checkpoints, "step"):
        console.print("no checkpoint yet: starting from the beginning", highlight=False)
    return _Training(folder.read_config(), run, console, build, new=False).run_to_end()


class _Training:
    """A run in progress: data, network, and the loop over epochs."""

    def __init__(self, config: RunConfig, path: Path, console: Console, build: Build, *, new: bool) -> None:
        self.config, self.console = config, console
        self.fabric = fabric = make_fabric(config)
        check_device(config, fabric)
        size = local_batch(config, fabric.world_size)
        self.part = self._load("train")
        check_fit(config, self.part)
        _make_deterministic(config.seed)
        model = _build(config, build, fabric)
        dataset = TensorDataset(self.part, config.data, config.seed, timesteps=config.model.timesteps, training=True)
        self.steps_per_epoch = len(dataset) // config.batch_size
        self.sampler = EpochSampler(
            self.steps_per_epoch * config.batch_size, config.seed, shuffle=True, rank=fabric.global_rank,
            world=fabric.world_size, of=len(dataset), shards_N=self.part.shards_N,
        )  # fmt: skip
        loader = make_loader(dataset, self.sampler, size, config.data, fabric.device)
        self.loader: Any = (
            fabric.setup_dataloaders(loader, use_distributed_sampler=False)
            if isinstance(loader, DataLoader)
            else loader
        )
        self.validation = evaluation_loader(self._load("val"), config, fabric)
        self.wrapped, optimizer = fabric.setup(model, build_optimizer(model, config))
        self.wrapped.mark_forward_method("forward_time")
        self.state = TrainingState(config, fabric, model, optimizer, self.part)  # type: ignore[arg-type]
        self.stepper = Stepper(self.state, self.wrapped, self.steps_per_epoch)
        path = fabric.broadcast(path)
        self.run = RunFolder.create(path, config, write=self._first) if new else RunFolder.open(path)

    def _load(self, split: Split) -> Part:
        with self.fabric.rank_zero_first():  # which downloads the data, and fills the cache of frames
            return load(self.config.data, split, self.config.model.timesteps)

    @property
    def _first(self) -> bool:
        """Whether this is the process that writes."""
        return self.fabric.is_global_zero

    @loading_deaths()
    def run_to_end(self) -> dict[str, Any]:
        """Train the epochs that are left and write the summary."""
        self.state.restore(self.run.checkpoints, self.console)
        self.tensorboard = TensorBoard(self.run.path / "tensorboard", len(self.state.history) + 1)
        for epoch in range(len(self.state.history), self.config.epochs):
            self._train_epoch(epoch)
            self._finish_epoch(epoch)
        summary = self._summarise()
        if self._first:
            write_summary(self.run.path, summary)
        return summary

    def _train_epoch(self, epoch: int) -> None:
        """Take the steps of an epoch that are left after an interruption, or all of them."""
        state, items = self.state, self.config.batch_size
        self.wrapped.train()
        state.set_slope(epoch)
        self.sampler.epoch, self.sampler.start = epoch, (state.step - epoch * self.steps_per_epoch) * items
        with progress_bar(self.console) as progress:
            name, total = f"epoch {epoch + 1}/{self.config.epochs}", self.steps_per_epoch * items
            task = progress.add_task(name, total=total, completed=self.sampler.start)
            parts: list[tuple[Tensor, Tensor]] = []
            for inputs, labels, unreadable in batches(self.loader):
                self._count_unreadable(unreadable)
                parts.append((inputs, labels))
                if len(parts) < self.config.accumulate:
                    continue
                self.stepper.take(parts)
                if state.step == EARLY_LOOK and self._first:
                    self._look_at_rates(parts[0][0])
                parts = []
                progress.advance(task, items)
                if self._first and time.monotonic() - state.saved_at >= self.config.checkpoint_seconds:
                    state.save(self.run.checkpoints)
        self.sampler.start = 0

    def _count_unreadable(self, unreadable: Tensor) -> None:
        for index in unreadable[unreadable >= 0].tolist():
            self.state.unreadable += 1
            say(self.console, f"skipped {self.part.name(index)}: it cannot be read")

    def _look_at_rates(self, inputs: Tensor) -> None:
        model = self.state.model
        model.eval()
        with self.fabric.autocast():
            _, rates = model.forward_with_rates(place_inputs(inputs, self.stepper.dtype))
        model.train()
        self._warn(rates.by_level(), f"after {self.state.step} steps")

    def _warn(self, rates: list[list[float]], when: str) -> None:
        for warning in rate_warnings(rates):
            self.console.print(f"warning: {when} {warning}", highlight=False, soft_wrap=True)

    def _finish_epoch(self, epoch: int) -> None:
        """Evaluate, save and report."""
        state = self.state
        taken = self.steps_per_epoch - state.guard.skipped
        self._share_buffers()
        result = evaluate(state.evaluated, self.validation, self.fabric)
        row = {
            "epoch": epoch + 1, "step": state.step, "train_loss": float(state.loss_sum) / taken if taken else math.nan,
            "val_loss": result.loss, "val_accuracy": result.accuracy, "lr": state.optimizer.param_groups[0]["lr"],
            "seconds": state.seconds, "skipped_steps": state.guard.skipped, "unreadable": state.unreadable,
            **{f"rate_level{i}": rates[0] for i, rates in enumerate(result.rates)},
            **{f"rate_hidden{i}_{n}": rates[n] for i, rates in enumerate(result.rates) for n in (1, 2)},
        }  # fmt: skip
        if self._first and all(row["val_accuracy"] > earlier["val_accuracy"] for earlier in state.history):
            state.save_best(self.run.checkpoints, epoch)
        state.history.append(row)
        state.begin_epoch()
        if self._first:
            state.save(self.run.checkpoints)
            write_metrics(self.run.path, state.history)
            self.tensorboard.write(row)
        self.console.print(epoch_line(row, self.config.epochs), highlight=False, soft_wrap=True)
        self._warn(result.rates, f"after epoch {epoch + 1}")

    def _share_buffers(self) -> None:
        """Give every process the first one's running statistics, which are the ones saved."""
        if self.fabric.world_size > 1:
            for model in (self.state.model, self.state.evaluated):
                distribute_bn(model, self.fabric.world_size, reduce=False)

    def _summarise(self) -> dict[str, Any]:
        """Evaluate on the test part, if there is one, and put the run's figures together."""
        state = self.state
        state.set_slope(self.config.epochs - 1)
        parts = {"train": self.part, "val": self.validation.dataset.part}  # type: ignore[attr-defined]
        test = None
        if "test" in splits(self.config.data):
            parts["test"] = self._load("test")
            loader = evaluation_loader(parts["test"], self.config, self.fabric)
            test = evaluate(state.evaluated, loader, self.fabric).accuracy
        summary = summarise(self.config, self.fabric, state.model, parts, state.history, test)
        return summary | {"steps": state.step, "seconds": state.seconds}


def _make_deterministic(seed: int) -> None:
    # cuBLAS sums in the same order every time with a workspace of its own only. It reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode also fills new memory, to expose reads of what was never written: a fifth of a step's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    seed_everything(seed, verbose=False)


def _build(config: RunConfig, build: Build, fabric: Fabric) -> TRevSNN:
    model = build(config.model)
    if config.start == "published":
        published_start(model)
    model = model.to(memory_format=fast_format(fabric.device))  # type: ignore[call-overload]
    if config.loss == "temporal":  # which reads the last head alone
        model.heads[:-1].requires_grad_(False)
    if config.sync_batchnorm and fabric.world_size > 1:
        share_statistics(model)
    return model
