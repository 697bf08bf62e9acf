"""Training on Lightning Fabric, resumable to the bit at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from timm.utils.distributed import distribute_bn
from torch import Tensor

from trevsnn.data.loading import TensorDataset, batches, ending_processes, loading_deaths, make_loader
from trevsnn.data.pictures.shown import size_warning
from trevsnn.data.sampling import EpochSampler
from trevsnn.network.model import TRevSNN
from trevsnn.run.changes import changed
from trevsnn.run.checkpoint import checkpoints
from trevsnn.run.config import RunConfig
from trevsnn.run.folder import RunFolder
from trevsnn.run.initial import begin_from
from trevsnn.run.lock import RunLock
from trevsnn.run.places import with_whole_paths
from trevsnn.terminal import say
from trevsnn.train.announce import announce
from trevsnn.train.build import Build, build_network
from trevsnn.train.curves import EpochFiles
from trevsnn.train.evaluate import evaluate, evaluate_part, evaluation_loader, place_inputs
from trevsnn.train.fit import check_device, check_fit
from trevsnn.train.going_on import take_changes
from trevsnn.train.interrupt import Interruption
from trevsnn.train.optim import build_optimizer
from trevsnn.train.parts import load_parts
from trevsnn.train.processes import in_first, local_batch, make_deterministic, make_fabric
from trevsnn.train.progress import RunProgress
from trevsnn.train.rates import RateWatch
from trevsnn.train.report import TensorBoard, epoch_line
from trevsnn.train.state import TrainingState
from trevsnn.train.step import Stepper
from trevsnn.train.steps import StepLog
from trevsnn.train.summary import summarise, write_summary

EARLY_LOOK = 100  # steps after which the firing rates are checked for the first time


@loading_deaths()
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
        RunError: files are missing or damaged, parts of the data have different classes, a file cannot be written, a
            loading process died, or gradients stayed not finite.
        Interrupted: a KeyboardInterrupt, by Ctrl-C or SIGTERM in the main thread, after the training step and a checkpoint.
    """
    RunFolder.check_new(run)
    with Interruption() as interruption, RunLock() as lock:
        return _Training(with_whole_paths(config), run, console, build, interruption, lock, new=True).run_to_end()


@loading_deaths()
def resume(
    run: Path, console: Console, build: Build = TRevSNN, changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Go on with an interrupted run to its end, from its latest intact checkpoint, or from the beginning.

    An ended run is left as it is, unless ``changes`` gives it more epochs. The weights are a function of the config, the
    machine, the number of processes and the versions alone: it does not matter how often, and where, the training was
    interrupted.

    Args:
        run: the run's folder.
        console: for progress.
        build: as the run was begun with.
        changes: values of some of the options ``trevsnn.run.changes.CHANGEABLE``; they are written to config.yaml. With
            ``epochs`` the learning rate is from the next step on what it would be in a run of so many.

    Returns:
        The content of summary.json.

    Raises:
        UsageError: ``changes`` cannot be made, or more epochs are done; or as :func:`train`.
        RunError: there is no such run, or another process trains it; or as :func:`train`.
        Interrupted: as :func:`train`.
    """
    folder = RunFolder.open(run)
    config = changed(folder.read_config(), changes or {})
    if (summary := folder.ended(config.epochs)) is not None:
        return summary
    folder.make_checkpoints()
    with Interruption(run) as interruption, RunLock() as lock:
        return _Training(config, run, console, build, interruption, lock, new=False).run_to_end()


class _Training:
    """A run in progress: data, network, and the loop over epochs."""

    def __init__(
        self, config: RunConfig, path: Path, console: Console, build: Build, interruption: Interruption, lock: RunLock,
        *, new: bool,
    ) -> None:  # fmt: skip
        self.config, self.console, self.interruption, self.new = config, console, interruption, new
        self.fabric = fabric = make_fabric(config)
        interruption.join(fabric.world_size)
        check_device(config, fabric)
        size = local_batch(config, fabric.world_size)
        self.run = RunFolder(path := fabric.broadcast(path))
        if not new:
            in_first(fabric, lambda: lock.take(self.run.lock_file, path))
            if not checkpoints(self.run.checkpoints, "step"):
                say(console, "no checkpoint yet: starting from the beginning")
        self.parts = load_parts(config, fabric)
        self.part = self.parts["train"]
        check_fit(config, self.part, new=new)
        if new and (warning := size_warning(self.part, config.data)) is not None:
            say(console, f"warning: {warning}")
        make_deterministic(config.seed)
        model = build_network(config, build, fabric)
        if config.init is not None and (new or not checkpoints(RunFolder(path).checkpoints, "step")):
            say(console, begin_from(config.init, model, self.part.classes))
        dataset = TensorDataset(self.part, config.data, config.seed, timesteps=config.model.timesteps, training=True)
        self.steps_per_epoch = len(dataset) // config.batch_size
        self.sampler = EpochSampler(
            self.steps_per_epoch * config.batch_size, config.seed, shuffle=True, rank=fabric.global_rank,
            world=fabric.world_size, of=len(dataset), shards_N=self.part.shards_N,
        )  # fmt: skip
        self.loader = make_loader(dataset, self.sampler, size, config.data, fabric.device)
        self.validation = evaluation_loader(self.parts["val"], config, fabric)
        self.wrapped, optimizer = fabric.setup(model, build_optimizer(model, config))
        self.wrapped.mark_forward_method("forward_time")
        self.state = TrainingState(config, fabric, model, optimizer, self.part, self.parts["val"])  # type: ignore[arg-type]
        self.stepper = Stepper(self.state, self.wrapped, self.steps_per_epoch)
        self.rate_watch = RateWatch(config.start)
        items, held_out = self.steps_per_epoch * config.batch_size, len(self.validation.dataset)  # type: ignore[arg-type]
        self.progress = RunProgress(console, config.epochs, self.steps_per_epoch, config.batch_size, held_out / items)
        if new:
            in_first(fabric, lambda: self.run.begin(config, lock))
        interruption.run, interruption.epochs, interruption.steps_per_epoch = path, config.epochs, self.steps_per_epoch

    @property
    def _first(self) -> bool:
        """Whether this is the process that writes."""
        return self.fabric.is_global_zero

    def run_to_end(self) -> dict[str, Any]:
        """Train the epochs that are left and write the summary."""
        saved = self.state.restore(self.run.checkpoints, self.console)
        self.fabric.barrier()  # config.yaml is there, and all have the same checkpoint before there is another
        if self.config.init is not None and self.state.step == 0 and self._first:
            self.state.save(self.run.checkpoints)  # what it began with may not lie there any more when it is resumed
        if not self.new:
            take_changes(self.run, self.config, saved, self.state.step, self.steps_per_epoch, self.console, self._first)
        announce(self.console, self.config, self.fabric, self.state.model, self.parts, self.run.path)
        if self._first:
            self.run.clean()
            self.steps = StepLog(self.run.path, self.steps_per_epoch, self.state.step)
            self.files = EpochFiles(self.run.path)
            if self.state.history:  # a kill may have come between a checkpoint and its row
                self.files.write(self.state.history)
        self.tensorboard = TensorBoard(self.run.tensorboard, len(self.state.history) + 1)
        with ending_processes(self.loader, self.validation), self.interruption.deferring(self._stop):
            for epoch in range(len(self.state.history), self.config.epochs):
                self.interruption.check()
                self._train_epoch(epoch)
                with self.progress.evaluation():
                    self._finish_epoch(epoch)
            self.interruption.check()
        summary = self._summarise()
        if self._first:
            self.files.draw()
            write_summary(self.run.path, summary)
        return summary

    def _save(self) -> None:
        """Save in the first process, where there is something to save; rows of steps before."""
        if self._first and self.state.step:
            self.steps.flush()
            self.state.save(self.run.checkpoints)

    def _stop(self) -> None:
        """Leave everything as it is when the run is interrupted."""
        self._save()
        if self._first:
            self.files.draw()

    def _train_epoch(self, epoch: int) -> None:
        """Take the steps of an epoch that are left after an interruption, or all of them."""
        state, items = self.state, self.config.batch_size
        self.wrapped.train()
        state.set_slope(epoch)
        self.sampler.epoch, self.sampler.start = epoch, (state.step - epoch * self.steps_per_epoch) * items
        with self.progress.epoch(epoch, self.sampler.start // items):
            parts: list[tuple[Tensor, Tensor]] = []
            for inputs, labels, unreadable in batches(self.loader):
                self._count_unreadable(unreadable)
                parts.append(self.fabric.to_device((inputs, labels)))
                if len(parts) < self.config.accumulate:
                    continue
                norm = self.stepper.take(parts)
                if state.step == EARLY_LOOK and self._first:
                    self._look_at_rates(parts[0][0])
                parts = []
                self._report_step(norm)
                if time.monotonic() - state.saved_at >= self.config.checkpoint_seconds:
                    self._save()
                self.interruption.check()
        self.sampler.start = 0

    def _report_step(self, norm: Tensor) -> None:
        state = self.state
        if self._first and self.steps.is_due(state.step):
            self.steps.add(state.step, self._lr, state.since_taken, state.since.clone(), norm)
            state.since.zero_()
            state.since_taken = 0
        self.progress.step(state.step, lambda: self._mean(state.loss_sum))

    @property
    def _lr(self) -> float:
        """Learning rate of the last step, the highest where layers have their own."""
        return max(group["lr"] for group in self.state.optimizer.param_groups)

    def _mean(self, total: Tensor) -> float:
        """Of the epoch's steps that were not skipped."""
        taken = self.state.step - len(self.state.history) * self.steps_per_epoch - self.state.guard.skipped
        return float(total) / taken if taken else math.nan

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
        if self.state.step < self.config.optim.warmup_epochs * self.steps_per_epoch:
            return  # many layers are quiet at first, and wake
        if (warning := self.rate_watch.look(rates)) is not None:
            say(self.console, f"warning: {when} {warning}")

    def _finish_epoch(self, epoch: int) -> None:
        """Evaluate, save and report."""
        state = self.state
        self._share_buffers()
        result = evaluate(state.evaluated, self.interruption.watched(self.validation), self.fabric)
        row = {
            "epoch": epoch + 1, "step": state.step, "train_loss": self._mean(state.loss_sum),
            "val_loss": result.loss, "val_accuracy": result.accuracy, "lr": self._lr,
            "seconds": state.seconds, "skipped_steps": state.guard.skipped, "unreadable": state.unreadable,
            **{f"rate_level{i}": rates[0] for i, rates in enumerate(result.rates)},
            **{f"rate_hidden{i}_{n}": rates[n] for i, rates in enumerate(result.rates) for n in (1, 2)},
            "train_ce": self._mean(state.ce_sum),
        }  # fmt: skip
        if self._first and all(row["val_accuracy"] > earlier["val_accuracy"] for earlier in state.history):
            state.save_best(self.run.checkpoints, epoch)
        state.history.append(row)
        state.begin_epoch()
        self._save()
        if self._first:
            state.keep_best(self.run.checkpoints)  # after the history is saved that says which it is
            self.files.write(state.history)
            self.tensorboard.write([(epoch + 1, row)])
        say(self.console, epoch_line(row, self.config.epochs))
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
        test = None
        if "test" in self.parts:
            test = evaluate_part(state.evaluated, self.parts["test"], self.config, self.fabric).accuracy
        summary = summarise(self.config, self.fabric, state.model, self.parts, state.history, test)
        return summary | {"steps": state.step, "seconds": state.seconds, "changes": self.run.notes()}
