"""Training on Lightning Fabric, resumable to the bit at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import seed_everything
from rich.console import Console
from timm.utils.distributed import distribute_bn
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from trevsnn.data.loading import TensorDataset, batches, loading_deaths, make_loader
from trevsnn.data.part import Part, Split
from trevsnn.data.pictures.transforms import BatchMixup
from trevsnn.data.sampling import EpochSampler
from trevsnn.data.sets import load, splits
from trevsnn.errors import RunError
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.encoders import slope_at
from trevsnn.network.losses import deep_supervision_loss, temporal_loss
from trevsnn.network.model import TRevSNN
from trevsnn.network.norm import share_statistics
from trevsnn.run.checkpoint import checkpoints, load_checkpoint, remove_checkpoints, save_checkpoint
from trevsnn.run.config import RunConfig
from trevsnn.run.folder import RunFolder
from trevsnn.run.load import load_weights
from trevsnn.train.evaluate import evaluate, evaluation_loader, place_inputs
from trevsnn.train.guard import StepGuard, rate_warnings
from trevsnn.train.optim import build_optimizer, build_scheduler, clip_gradients
from trevsnn.train.processes import local_batch, make_fabric
from trevsnn.train.report import History, TensorBoard, epoch_line, progress_bar, write_metrics
from trevsnn.train.summary import check_fit, summarise, write_summary

STEP_CHECKPOINTS = 2  # the one before the latest is there for when the latest is damaged
Build = Callable[[TRevSNNConfig], TRevSNN]
EARLY_LOOK = 100  # steps, after which the firing rates are looked at for the first time


def train(config: RunConfig, run: Path, console: Console, build: Build = TRevSNN) -> dict[str, Any]:
    """Begin a run in a new folder and train it to its end.

    Under torchrun or SLURM every process calls this; the first one writes.

    Args:
        config: of the run.
        run: its folder, new or empty.
        console: for progress.
        build: makes the network from ``config.model``: yours, if you changed it.

    Returns:
        What is written to summary.json.

    Raises:
        RunError, UsageError: the data and the model do not fit together, files are missing or damaged, or the folder is
            in use.
    """
    return _Training(config, run, console, build, new=True).run_to_end()


def resume(run: Path, console: Console, build: Build = TRevSNN) -> dict[str, Any]:
    """Go on with an interrupted run to its end, from its latest intact checkpoint, or from the beginning.

    The weights are a function of the config, the machine, the number of processes and the versions alone: it does not
    matter how often, and where, the training was interrupted.
    """
    folder = RunFolder.open(run)
    folder.checkpoints.mkdir(exist_ok=True)
    if not checkpoints(folder.checkpoints, "step"):
        console.print("no checkpoint yet: starting from the beginning", highlight=False)
    return _Training(folder.read_config(), run, console, build, new=False).run_to_end()


class _Training:
    """The moving parts of one training; ``_save`` and ``_restore`` name those that change."""

    def __init__(self, config: RunConfig, path: Path, console: Console, build: Build, *, new: bool) -> None:
        self.config = config
        self.fabric = fabric = make_fabric(config)
        self.console = console
        self.local_batch = local_batch(config, fabric.world_size)
        self.part = self._load("train")
        check_fit(config, self.part)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Which would also fill all new memory, to show reads of it before it is written: a fifth of a step's time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        seed_everything(config.seed, verbose=False)
        # Channels-last is the faster layout on CPU and CUDA alike, and every mode gives the same results in it.
        model = build(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.loss == "temporal":  # which reads the last head alone
            model.heads[:-1].requires_grad_(False)
        if config.sync_batchnorm and fabric.world_size > 1:
            share_statistics(model)
        dataset = TensorDataset(self.part, config.data, config.seed, training=True)
        self.steps_per_epoch = len(dataset) // config.batch_size
        self.sampler = EpochSampler(
            self.steps_per_epoch * config.batch_size, config.seed, shuffle=True, rank=fabric.global_rank,
            world=fabric.world_size, of=len(dataset),
        )  # fmt: skip
        pin = fabric.device.type == "cuda"
        loader = make_loader(dataset, self.sampler, self.local_batch, config.data, pin=pin)
        self.loader: Any = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        self.validation = evaluation_loader(self._load("val"), config, fabric)
        self.mixup = (
            BatchMixup(config.data, config.model.num_classes, config.label_smoothing, config.seed)
            if config.data.mixes
            else None
        )
        self.wrapped, self.optimizer = fabric.setup(model, build_optimizer(model, config))
        self.wrapped.mark_forward_method("forward_heads")
        self.wrapped.mark_forward_method("forward_time")
        self.model = model
        self.dtype = next(model.parameters()).dtype
        self.scheduler = build_scheduler(self.optimizer, config, self.steps_per_epoch)
        self.ema = None if config.ema_decay is None else ModelEmaV3(model, config.ema_decay, use_warmup=True)
        self.guard = StepGuard(model, config.max_nonfinite)
        self.step = 0
        # Of the epoch so far, of this process's items.
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=fabric.device)
        self.unreadable = 0
        self.history: History = []
        self.seconds = 0.0
        self.saved_at = self.continued_at = time.monotonic()
        path = fabric.broadcast(path)
        self.run = RunFolder.create(path, config, write=self._first) if new else RunFolder.open(path)

    def _load(self, split: Split) -> Part:
        with self.fabric.rank_zero_first():  # which downloads, and fills the cache
            return load(self.config.data, split, self.config.model.timesteps)

    @loading_deaths()
    def run_to_end(self) -> dict[str, Any]:
        self._restore()
        self.tensorboard = TensorBoard(self.run.path / "tensorboard", len(self.history) + 1)
        for epoch in range(len(self.history), self.config.epochs):
            self._train_epoch(epoch)
            self._finish_epoch(epoch)
        summary = self._summarise()
        if self._first:
            write_summary(self.run.path, summary)
        return summary

    @property
    def _first(self) -> bool:
        """Whether this is the process that writes."""
        return self.fabric.is_global_zero

    def _train_epoch(self, epoch: int) -> None:
        self.wrapped.train()
        self._set_slope(epoch)
        done = self.step - epoch * self.steps_per_epoch
        self.sampler.epoch, self.sampler.start = epoch, done * self.config.batch_size
        with progress_bar(self.console) as progress:
            total = self.steps_per_epoch * self.config.batch_size
            task = progress.add_task(
                f"epoch {epoch + 1}/{self.config.epochs}", total=total, completed=self.sampler.start
            )
            parts = []
            for batch in batches(self.loader):
                parts.append(batch)
                if len(parts) == self.config.accumulate:
                    self._train_step(parts)
                    parts = []
                    progress.advance(task, self.config.batch_size)
                    if self._first and time.monotonic() - self.saved_at >= self.config.checkpoint_seconds:
                        self._save()
        self.sampler.start = 0

    def _train_step(self, parts: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        self.scheduler.step_update(self.step)
        self.guard.begin_step()
        losses = []
        for place, (inputs, labels, unreadable) in enumerate(parts):
            self._count_unreadable(unreadable)
            with self.fabric.no_backward_sync(self.wrapped, enabled=place < len(parts) - 1):
                loss = self._loss(place_inputs(inputs, self.dtype), labels, place) / len(parts)
                self.fabric.backward(loss)
            losses.append(loss.detach())
        norm = clip_gradients(self.model.parameters(), self.model.heads.parameters(), self.config.optim)
        if self.guard.accept(norm):
            self.optimizer.step()
            if self.ema is not None:
                self.ema.update(self.model, self.step)
            self.loss_sum += sum(losses)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.step == EARLY_LOOK and self._first:
            self._look_at_rates(place_inputs(parts[0][0], self.dtype))

    def _loss(self, inputs: Tensor, labels: Tensor, place: int) -> Tensor:
        config, smoothing, target = self.config, self.config.label_smoothing, labels
        if self.mixup is not None:
            inputs, target = self.mixup(inputs, labels, self.step, self.fabric.global_rank, place)
            smoothing = 0.0  # it is in the target
        with self.fabric.autocast():  # Fabric enters it by itself for forward alone
            if config.loss == "temporal":
                return temporal_loss(self.wrapped.forward_time(inputs), target, smoothing)
            return deep_supervision_loss(self.wrapped.forward_heads(inputs), target, smoothing)

    def _count_unreadable(self, unreadable: Tensor) -> None:
        for index in unreadable[unreadable >= 0].tolist():
            self.unreadable += 1
            self.console.print(f"skipped {self.part.name(index)}: it cannot be read", highlight=False, soft_wrap=True)

    def _look_at_rates(self, inputs: Tensor) -> None:
        self.model.eval()
        with self.fabric.autocast():
            _, rates = self.model.forward_with_rates(inputs)
        self.model.train()
        self._warn(rates.by_level(), f"after {self.step} steps")

    def _warn(self, rates: list[list[float]], when: str) -> None:
        for warning in rate_warnings(rates):
            self.console.print(f"warning: {when} {warning}", highlight=False, soft_wrap=True)

    def _finish_epoch(self, epoch: int) -> None:
        taken = self.steps_per_epoch - self.guard.skipped
        self._share_buffers()
        result = evaluate(self._evaluated(), self.validation, self.fabric)
        row = {
            "epoch": epoch + 1, "step": self.step, "train_loss": float(self.loss_sum) / taken if taken else math.nan, "val_loss": result.loss,
            "val_accuracy": result.accuracy, "lr": self.optimizer.param_groups[0]["lr"], "seconds": self._elapsed(),
            "skipped_steps": self.guard.skipped, "unreadable": self.unreadable,
            **{f"rate_level{i}": row[0] for i, row in enumerate(result.rates)},
            **{f"rate_hidden{i}_{n}": row[n] for i, row in enumerate(result.rates) for n in (1, 2)},
        }  # fmt: skip
        if self._first and all(row["val_accuracy"] > earlier["val_accuracy"] for earlier in self.history):
            best = {"model": self._evaluated().state_dict()}
            save_checkpoint(self.run.checkpoints / f"best-{epoch + 1:06d}", best, self._about())
            remove_checkpoints(self.run.checkpoints, "best", keep=1)
        self.history.append(row)
        self.loss_sum.zero_()
        self.guard.skipped = self.unreadable = 0
        if self._first:
            self._save()
            write_metrics(self.run.path, self.history)
            self.tensorboard.write(row)
        self.console.print(epoch_line(row, self.config.epochs), highlight=False, soft_wrap=True)
        self._warn(result.rates, f"after epoch {epoch + 1}")

    def _share_buffers(self) -> None:
        """Give every process the first one's running statistics, which are the ones saved."""
        if self.fabric.world_size > 1:
            for model in (self.model, self._evaluated()):
                distribute_bn(model, self.fabric.world_size, reduce=False)

    def _evaluated(self) -> TRevSNN:
        model = self.model if self.ema is None else self.ema.module
        assert isinstance(model, TRevSNN)
        return model

    def _set_slope(self, epoch: int) -> None:
        self.slope = slope_at(epoch, self.config.slope_epochs)
        self.model.set_slope(self.slope)
        self._evaluated().set_slope(self.slope)

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.continued_at

    def _about(self) -> dict[str, Any]:
        """What evaluating the weights needs besides the config."""
        return {"slope": self.slope, "about": asdict(self.part.about)}

    def _save(self) -> None:
        weights = {"model": self.model.state_dict()}
        if self.ema is not None:
            weights["ema"] = self.ema.module.state_dict()
        random = {"cpu": torch.get_rng_state()}
        if self.fabric.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state()
        state = {
            "step": self.step, "loss_sum": self.loss_sum, "skipped": self.guard.skipped, "in_a_row": self.guard.in_a_row,
            "unreadable": self.unreadable, "history": self.history, "seconds": self._elapsed(),
            "optimizer": self.optimizer.state_dict(), "random": random, **self._about(),
        }  # fmt: skip
        save_checkpoint(self.run.checkpoints / f"step-{self.step:09d}", weights, state)
        remove_checkpoints(self.run.checkpoints, "step", keep=STEP_CHECKPOINTS)
        self.saved_at = time.monotonic()

    def _restore(self) -> None:
        """Load the latest intact checkpoint, saying so where a later one is damaged."""
        for folder in checkpoints(self.run.checkpoints, "step"):
            try:
                weights, state = load_checkpoint(folder)
            except RunError as error:
                self.console.print(f"{error} Trying the one before it.", highlight=False, soft_wrap=True)
                continue
            load_weights(self.model, weights["model"], folder)
            if self.ema is not None:
                load_weights(self.ema.module, weights["ema"], folder)
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.history, self.seconds = state["step"], state["history"], state["seconds"]
            self.loss_sum.copy_(state["loss_sum"])
            self.guard.skipped, self.guard.in_a_row = state["skipped"], state["in_a_row"]
            self.unreadable = state["unreadable"]
            torch.set_rng_state(state["random"]["cpu"])
            if "cuda" in state["random"] and self.fabric.device.type == "cuda":
                torch.cuda.set_rng_state(state["random"]["cuda"])
            self.console.print(f"going on from {folder.name}, after {len(self.history)} epochs", highlight=False)
            return
        if checkpoints(self.run.checkpoints, "step"):
            self.console.print("no intact checkpoint: starting from the beginning", highlight=False)

    def _summarise(self) -> dict[str, Any]:
        self._set_slope(self.config.epochs - 1)
        parts = {"train": self.part, "val": self.validation.dataset.part}  # type: ignore[attr-defined]
        test = None
        if "test" in splits(self.config.data):
            parts["test"] = self._load("test")
            loader = evaluation_loader(parts["test"], self.config, self.fabric)
            test = evaluate(self._evaluated(), loader, self.fabric).accuracy
        return summarise(self.config, self.fabric, self.model, parts, self.history, test) | {
            "steps": self.step,
            "seconds": self._elapsed(),
        }
