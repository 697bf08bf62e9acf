"""The folder of a run.

::

    config.yaml          every value of the run's config; comments at its top say what was changed, and when
    checkpoints/step-N   what training needs to go on after N training steps; the latest two are kept
    checkpoints/best-E   the evaluated weights of epoch E, the best so far
    metrics.csv          a line for each epoch
    steps.csv            a line for up to 101 training steps of each epoch
    curves.png  tensorboard/  summary.json
    .lock                held by the process that trains the run
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, Namespace

from trevsnn.errors import RunError, UsageError
from trevsnn.files import read_json, refuse_links, remove_leftovers, write_file
from trevsnn.plain_yaml import read_yaml
from trevsnn.run.config import RunConfig, config_of, to_yaml
from trevsnn.run.config_file import check_names
from trevsnn.run.lock import RunLock, is_locked
from trevsnn.run.options import types_of
from trevsnn.run.reading import wrong_values

#: Which weights of a run: those saved last ("last"), or those of the epoch that was best on the held-out items ("best").
Weights = Literal["last", "best"]

#: File in an exported folder: what a network must know of its data, and its figures.
ABOUT = "about.json"

FIGURES = (
    "last_accuracy",
    "best_accuracy",
    "best_epoch",
    "seconds",
    "epochs",
    "steps",
)  # of a summary, that are printed


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, and the paths in it."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def lock_file(self) -> Path:
        return self.path / ".lock"

    @staticmethod
    def check_new(path: Path) -> None:
        """Raise UsageError where a folder cannot be that of a new run: it is none, or not empty."""
        if path.exists() and (not path.is_dir() or any(other.name != ".lock" for other in path.iterdir())):
            if is_locked(path / ".lock"):
                raise UsageError(
                    f"{path} is being trained already, by another process: name another folder with --run."
                )
            raise UsageError(
                f"{path} exists already: go on with {resume_command(path)}, or name another folder with --run."
            )

    def begin(self, config: RunConfig, lock: RunLock) -> None:
        """Make the folder of a new run, take its lock and write its config.

        Raises:
            UsageError: as :meth:`check_new`.
            RunError: it cannot be written, or another process has begun a run there.
        """
        self.check_new(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.take(self.lock_file, self.path)
            self.check_new(self.path)  # another process may have been quicker, and be done
            write_file(self.config_file, to_yaml(config).encode())  # first: with it a run can be resumed
            self.checkpoints.mkdir()
        except OSError as error:
            raise RunError(
                f"the run folder {self.path} cannot be written ({error.strerror}): name another with --run."
            ) from error

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an existing run. Raises RunError where it is none, or holds links in the place of folders."""
        run = cls(path)
        if not run.config_file.is_file():
            saved = (path / "config.json").is_file()
            what = ", only a network without classes and data, from which trevsnn train --init begins" if saved else ""
            raise RunError(f"{path} is no run: it holds no config.yaml{what}; give a folder that trevsnn train made.")
        refuse_links(run.checkpoints, run.tensorboard, run.tensorboard / "steps")
        return run

    def make_checkpoints(self) -> None:
        """Make the folder of the checkpoints where somebody removed it. Raises RunError where that fails, or in an export."""
        if (self.path / ABOUT).is_file():
            raise RunError(
                f"{self.path} is an export, which holds nothing to go on from: resume its run, or begin a new one from its weights "
                "with trevsnn train --init."
            )
        try:
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(
                f"the folder {self.checkpoints} cannot be made ({error.strerror}): see to that, and go on."
            ) from error

    @staticmethod
    def next_free(name: str) -> Path:
        """runs/NAME, or runs/NAME-2, runs/NAME-3, ... if that is taken."""
        path, n = Path("runs") / name, 1
        while path.exists():
            n += 1
            path = Path("runs") / f"{name}-{n}"
        return path

    def read_config(self) -> RunConfig:
        """The run's config. Raises RunError where its file is damaged."""
        try:
            text, content = read_yaml(self.config_file)
            check_names(content, types_of(RunConfig))
            try:
                return config_of(Namespace(), text)
            except ArgumentError as error:  # which names the option, and neither its value nor what it takes
                raise ValueError(" ".join(wrong_values(content)) or str(error)) from error
        except (ValueError, TypeError, OSError, yaml.YAMLError) as error:
            first = shorten(str(error), 300, placeholder=" ...")
            raise RunError(f"{self.config_file} is damaged ({first}): mend it, or train anew.") from error

    def change_config(self, config: RunConfig, notes: Sequence[str]) -> None:
        """Write another config in the place of the run's, with a note of each change. Raises RunError where that fails."""
        comments = "".join(f"# {note}\n" for note in [*self.notes(), *notes])
        write_file(self.config_file, (comments + to_yaml(config)).encode())

    def notes(self) -> list[str]:
        """What was changed in the run's config since it was begun. Raises RunError where its file is damaged."""
        try:
            text, _ = read_yaml(self.config_file)
        except (ValueError, OSError, yaml.YAMLError) as error:
            raise RunError(f"{self.config_file} is damaged ({error}): mend it, or train anew.") from error
        return [line[2:] for line in text.splitlines() if line.startswith("# after step ")]

    def clean(self) -> None:
        """Remove what a killed process left half-written. For the process that trains the run."""
        for folder in (self.path, self.checkpoints):
            remove_leftovers(folder)

    def ended(self, epochs: int) -> dict[str, Any] | None:
        """The content of summary.json, if the run has ended after so many epochs; None otherwise.

        A run whose latest checkpoint is of an earlier step than its summary has not: the end of it is to be made again.
        """
        summary = self.summary()
        whole = self.saved_step() in (0, summary.get("steps"))  # 0: somebody needed the room of its checkpoints
        return summary if summary.get("epochs") == epochs and whole else None

    def saved_step(self) -> int:
        """The training step of the latest checkpoint; 0 where there is none."""
        saved = [path.name[5:] for path in self.checkpoints.glob("step-*") if path.is_dir()]
        return max((int(number) for number in saved if number.isdecimal()), default=0)

    def summary(self) -> dict[str, Any]:
        """The content of summary.json; nothing where there is none, or one that is damaged."""
        try:
            summary = read_json(self.path / "summary.json")
        except (OSError, ValueError):
            return {}
        sound = isinstance(summary, dict) and all(is_number(summary.get(name)) for name in FIGURES)
        return summary if sound else {}


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a number that a float can hold; infinite ones and NaN are."""
    sound = isinstance(value, float) or (isinstance(value, int) and abs(value) <= sys.float_info.max)
    return sound and not isinstance(value, bool)


def resume_command(path: Path) -> str:
    """The command that goes on with a run, as it is typed into a shell."""
    text = str(path)
    return f"trevsnn train --resume {shlex.quote(f'./{text}' if text.startswith('-') else text)}"
