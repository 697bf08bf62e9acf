"""How far a run is: a bar on a terminal, now and then a line elsewhere, and the time that the whole run has left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from trevsnn.terminal import say

BAR_SECONDS = 0.25  # between two looks at the loss, which wait for the device
FIRST_LINE = 10  # steps after a start
LINE_SECONDS, LINE_SHARE, LONGEST_SECONDS = 30.0, 0.1, 600.0
MEMORY = 0.99  # weight of the time of a step after the next one, in their mean
EVALUATION = 1 / 3  # of the time of a training step for as many items, until one was measured


class RunClock:
    """Reckons the time that is left of a run from the steps and evaluations so far of this start.

    Args:
        epochs, steps_per_epoch: of the run.
        held_out: held-out items as a share of an epoch's training items.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, held_out: float) -> None:
        self.epochs, self.steps_per_epoch, self.held_out = epochs, steps_per_epoch, held_out
        self._sum = self._weight = 0.0
        self._evaluation: float | None = None

    def add_step(self, seconds: float) -> None:
        """Count the time of a step, with its loading."""
        self._sum, self._weight = MEMORY * self._sum + seconds, MEMORY * self._weight + 1

    def add_evaluation(self, seconds: float) -> None:
        """Count the time of an evaluation, with all that is saved and written after an epoch."""
        self._evaluation = seconds

    @property
    def seconds_per_step(self) -> float | None:
        return self._sum / self._weight if self._weight else None

    def left(self, step: int, evaluations: int) -> float | None:
        """Seconds until the end; None before the first step.

        Args:
            step: training steps so far.
            evaluations: held so far.
        """
        per_step = self.seconds_per_step
        if per_step is None:
            return None
        one = self._evaluation
        if one is None:
            one = per_step * self.steps_per_epoch * self.held_out * EVALUATION
        return (self.epochs * self.steps_per_epoch - step) * per_step + (self.epochs - evaluations) * one


class RunProgress:
    """Shows a run's progress on a console.

    Args:
        console: a bar if it is a terminal, otherwise lines: one after the first steps, then one every 30 seconds or every
            tenth of an epoch, whichever is rarer, but one in ten minutes.
        epochs, steps_per_epoch, items: of the run, and of a step.
        held_out: held-out items as a share of an epoch's training items.
    """

    def __init__(self, console: Console, epochs: int, steps_per_epoch: int, items: int, held_out: float) -> None:
        self.console, self.items = console, items
        self.clock = RunClock(epochs, steps_per_epoch, held_out)
        self._steps = 0  # of this start
        self._looked_at = self._line_at = self._step_at = time.monotonic()
        self._line_step = 0

    @contextmanager
    def epoch(self, epoch: int, done: int) -> Iterator[None]:
        """A context of an epoch's training steps, ``done`` of which were taken before; ``epoch`` counts from 0."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
        )
        shown = not self.console.quiet and self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=not shown) as bar:
            self._bar, self._epoch = bar, epoch
            self._task = bar.add_task(
                f"epoch {epoch + 1}/{self.clock.epochs}", total=self.clock.steps_per_epoch, completed=done, figures=""
            )
            self._step_at = time.monotonic()
            yield

    def step(self, step: int, loss: Callable[[], float]) -> None:
        """A step was taken.

        Args:
            step: training steps so far.
            loss: the epoch's mean loss so far; called where it is shown.
        """
        now = time.monotonic()
        self._steps += 1
        if self._steps > 1:  # the first one compiles, captures, and chooses algorithms
            self.clock.add_step(now - self._step_at)
        self._step_at = now
        within = step - self._epoch * self.clock.steps_per_epoch
        if self.console.quiet:
            return
        if self.console.is_terminal:
            self._bar.advance(self._task)
            if now - self._looked_at >= BAR_SECONDS:
                self._looked_at = now
                self._bar.update(self._task, figures=self._figures(step, within, loss()))
        elif self._is_line_due(now, step):
            self._line_at, self._line_step = now, step
            text = f"epoch {self._epoch + 1}/{self.clock.epochs}  {self._figures(step, within, loss())}"
            say(self.console, text)

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """A context of what is done after an epoch's steps."""
        begun = time.monotonic()
        shown = not self.console.quiet and self.console.is_terminal
        with Progress(
            TextColumn("{task.description}", markup=False), console=self.console, transient=True, disable=not shown
        ) as bar:
            bar.add_task(f"epoch {self._epoch + 1}/{self.clock.epochs}  evaluating")
            yield
        self.clock.add_evaluation(time.monotonic() - begun)

    def _is_line_due(self, now: float, step: int) -> bool:
        if self._steps == FIRST_LINE:
            return True
        waited, steps = now - self._line_at, step - self._line_step
        far = steps >= LINE_SHARE * self.clock.steps_per_epoch
        return self._steps > FIRST_LINE and ((waited >= LINE_SECONDS and far) or waited >= LONGEST_SECONDS)

    def _figures(self, step: int, within: int, loss: float) -> str:
        per_step, left = self.clock.seconds_per_step, self.clock.left(step, self._epoch)
        rate = f"  {self.items / per_step:,.0f} items/s" if per_step else ""
        end = f"  {timedelta(seconds=round(left))} left of the run" if left is not None else ""
        return f"step {within:,}/{self.clock.steps_per_epoch:,}{rate}  loss {loss:.4f}{end}"
