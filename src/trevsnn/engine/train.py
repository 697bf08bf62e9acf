"""Training on Lightning Fabric, resumable to the bit at any step."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric, seed_everything
from rich.console import Console
from timm.utils.clip_grad import dispatch_clip_grad
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from trevsnn.config import RunConfig, to_dict
from trevsnn.data.images import EpochSampler, PictureDataset, Pictures, load, splits
from trevsnn.encoders import slope_at
from trevsnn.engine.checkpoint import checkpoints, load_checkpoint, remove_checkpoints, save_checkpoint
from trevsnn.engine.evaluate import evaluate, evaluation_loader, load_weights
from trevsnn.engine.optim import build_optimizer, build_scheduler
from trevsnn.engine.report import (
    History,
    epoch_line,
    mean_rates,
    peak_memory,
    progress_bar,
    write_metrics,
    write_summary,
)
from trevsnn.engine.run_folder import RunFolder
from trevsnn.errors import RunError, UsageError
from trevsnn.heads import deep_supervision_loss, temporal_loss
from trevsnn.model import TRevSNN

STEP_CHECKPOINTS = 2  # the one before the latest is there for when the latest is damaged


def make_fabric(config: RunConfig) -> Fabric:
    """One device of the configured kind. Raises UsageError where the machine has none."""
    try:
        return Fabric(accelerator=config.accelerator, devices=1, precision=config.precision)
    except Exception as error:  # Fabric raises several kinds, each with a sentence of its own
        raise UsageError(
            f"accelerator {config.accelerator!r} cannot be used here ({error}): try accelerator=auto."
        ) from error


def train(config: RunConfig, run: RunFolder, console: Console) -> dict[str, Any]:
    """Train a run from its latest intact checkpoint, or from the beginning, to its end.

    The weights are a function of the config, the machine and the versions alone: it does not matter how often, and
    where, the training was interrupted.

    Returns:
        What is written to summary.json.

    Raises:
        RunError, UsageError: the data and the model do not fit together, or files are missing or damaged.
    """
    return _Training(config, run, console).run_to_end()


class _Training:
    """The moving parts of one training; ``_save`` and ``_restore`` name those that change."""

    def __init__(self, config: RunConfig, run: RunFolder, console: Console) -> None:
        self.config, self.run, self.console = config, run, console
        self.fabric = make_fabric(config)
        self.pictures = load(config.data, "train")
        _check_fit(config, self.pictures)
        torch.use_deterministic_algorithms(True, warn_only=True)
        seed_everything(config.seed, verbose=False)
        # Channels-last is the faster layout on CPU and CUDA alike, and every mode gives the same results in it.
        model = TRevSNN(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        dataset = PictureDataset(self.pictures, config.data, config.seed, training=True)
        self.sampler = EpochSampler(len(dataset), config.seed, shuffle=True)
        loader = DataLoader(
            dataset, config.batch_size, sampler=self.sampler, num_workers=config.data.workers, drop_last=True,
            pin_memory=self.fabric.device.type == "cuda", generator=torch.Generator(),
        )  # fmt: skip
        self.loader = self.fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        self.validation = evaluation_loader(load(config.data, "val"), config)
        self.steps_per_epoch = len(loader)
        self.wrapped, self.optimizer = self.fabric.setup(model, build_optimizer(model, config))
        self.wrapped.mark_forward_method("forward_heads")
        self.wrapped.mark_forward_method("forward_time")
        self.model = model
        self.dtype = next(model.parameters()).dtype
        self.scheduler = build_scheduler(self.optimizer, config, self.steps_per_epoch)
        self.ema = None if config.ema_decay is None else ModelEmaV3(model, config.ema_decay, use_warmup=True)
        self.step = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.fabric.device)  # of the epoch so far
        self.history: History = []
        self.seconds = 0.0
        self.saved_at = self.continued_at = time.monotonic()

    def run_to_end(self) -> dict[str, Any]:
        self._restore()
        writer = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=len(self.history) + 1)
        try:
            for epoch in range(len(self.history), self.config.epochs):
                self._train_epoch(epoch)
                self._finish_epoch(epoch, writer)
        finally:
            writer.close()
        summary = self._summarise()
        write_summary(self.run.path, summary)
        return summary

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
            for images, labels in self.loader:
                self._train_step(images, labels)
                progress.advance(task, len(labels))
                if time.monotonic() - self.saved_at >= self.config.checkpoint_seconds:
                    self._save()
        self.sampler.start = 0

    def _train_step(self, images: Tensor, labels: Tensor) -> None:
        config = self.config
        self.scheduler.step_update(self.step)
        images = images.to(self.dtype, memory_format=torch.channels_last)
        with self.fabric.autocast():  # Fabric enters it by itself for forward alone
            if config.loss == "temporal":
                loss = temporal_loss(self.wrapped.forward_time(images), labels, config.label_smoothing)
            else:
                loss = deep_supervision_loss(self.wrapped.forward_heads(images), labels, config.label_smoothing)
        self.fabric.backward(loss)
        if config.optim.clip_norm is not None:
            dispatch_clip_grad(self.model.parameters(), config.optim.clip_norm, mode="norm")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model, self.step)
        self.step += 1
        self.loss_sum += loss.detach()

    def _finish_epoch(self, epoch: int, writer: SummaryWriter) -> None:
        train_loss = float(self.loss_sum) / self.steps_per_epoch
        if train_loss != train_loss:
            raise RunError(f"the loss became NaN in epoch {epoch + 1}: lower optim.lr, or use precision 32-true.")
        result = evaluate(self._evaluated(), self.validation, self.fabric)
        row = {
            "epoch": epoch + 1, "step": self.step, "train_loss": train_loss, "val_loss": result.loss,
            "val_accuracy": result.accuracy, "lr": self.optimizer.param_groups[0]["lr"], "seconds": self._elapsed(),
            **{f"rate_level{i}": rate for i, rate in enumerate(result.firing_rates)},
        }  # fmt: skip
        if all(row["val_accuracy"] > earlier["val_accuracy"] for earlier in self.history):
            best = {"model": self._evaluated().state_dict()}
            save_checkpoint(self.run.checkpoints / f"best-{epoch + 1:06d}", best, self._about())
            remove_checkpoints(self.run.checkpoints, "best", keep=1)
        self.history.append(row)
        self.loss_sum.zero_()
        write_metrics(self.run.path, self.history, writer)
        self._save()
        self.console.print(epoch_line(row, self.config.epochs), highlight=False, soft_wrap=True)

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
        about = {"classes": self.pictures.classes, "mean": self.pictures.mean, "std": self.pictures.std}
        return {"slope": self.slope, "about": about}

    def _save(self) -> None:
        weights = {"model": self.model.state_dict()}
        if self.ema is not None:
            weights["ema"] = self.ema.module.state_dict()
        random = {"cpu": torch.get_rng_state()}
        if self.fabric.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state()
        state = {
            "step": self.step, "loss_sum": self.loss_sum, "history": self.history, "seconds": self._elapsed(),
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
            torch.set_rng_state(state["random"]["cpu"])
            if "cuda" in state["random"] and self.fabric.device.type == "cuda":
                torch.cuda.set_rng_state(state["random"]["cuda"])
            self.console.print(f"going on from {folder.name}, after {len(self.history)} epochs", highlight=False)
            return
        if checkpoints(self.run.checkpoints, "step"):
            self.console.print("no intact checkpoint: starting from the beginning", highlight=False)

    def _summarise(self) -> dict[str, Any]:
        last = self.history[-1]
        best = max(self.history, key=lambda row: row["val_accuracy"])
        self._set_slope(self.config.epochs - 1)
        test = None
        if "test" in splits(self.config.data):
            test = evaluate(
                self._evaluated(), evaluation_loader(load(self.config.data, "test"), self.config), self.fabric
            )
        return {
            "last_accuracy": last["val_accuracy"],
            "best_accuracy": best["val_accuracy"],
            "best_epoch": int(best["epoch"]),
            "test_accuracy": None if test is None else test.accuracy,
            "epochs": len(self.history),
            "steps": self.step,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "seconds": self._elapsed(),
            **peak_memory(self.fabric.device),
            "firing_rates": mean_rates(last),
            "training_pictures": len(self.pictures.labels_N),
            "held_out_pictures": len(self.validation.dataset),  # type: ignore[arg-type]
            "device": str(self.fabric.device),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "config": to_dict(self.config),
        }


def _check_fit(config: RunConfig, pictures: Pictures) -> None:
    """Whether the model can be trained on the data."""
    model, classes = config.model, len(pictures.classes)
    if model.input != "image":
        raise UsageError(
            f"model.input is {model.input!r}, but {config.data.name} are pictures: set model.input to image."
        )
    if model.num_classes != classes:
        raise UsageError(
            f"model.num_classes is {model.num_classes}, but {config.data.name} has {classes}: set it to {classes}."
        )
    if model.in_chans != 1:
        raise UsageError(f"model.in_chans is {model.in_chans}, but {config.data.name} are grey: set it to 1.")
    if config.batch_size > len(pictures.labels_N):
        raise UsageError(
            f"batch_size is {config.batch_size}, more than the {len(pictures.labels_N)} training pictures: lower it."
        )


def resume(path: Path, console: Console) -> dict[str, Any]:
    """Go on with an interrupted run to its end."""
    run = RunFolder.open(path)
    if not checkpoints(run.checkpoints, "step"):
        console.print("no checkpoint yet: starting from the beginning", highlight=False)
    return train(run.read_config(), run, console)
