"""The folder of a run.

::

    config.yaml          every value of the run's config; comments at its top say what was changed, and when
    checkpoints/step-N   what training needs to go on after N training steps; the latest two are kept
    checkpoints/best-E   the evaluated weights of epoch E, the best so far
    metrics.csv          a line for each epoch
    steps.csv            a line for up to 101 training steps of each epoch
    curves.png  tensorboard/  summary.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError

from trevsnn.errors import RunError, UsageError
from trevsnn.files import write_file
from trevsnn.run.config import RunConfig, parse_config, to_yaml

#: Which weights of a run: those saved last, or those of the epoch that was best on the held-out items.
Weights = Literal["last", "best"]

#: File in an exported folder: what a network must know of its data, and its figures.
ABOUT = "about.json"


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, and the paths in it."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @classmethod
    def create(cls, path: Path, config: RunConfig, *, write: bool) -> RunFolder:
        """Make the folder of a new run and write its config, in the one of several processes that has ``write``.

        Raises:
            UsageError: the folder exists and is not empty.
            RunError: it cannot be written.
        """
        if not write:
            return cls(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(
                f"{path} exists already: go on with trevsnn train --resume {path}, or name another folder with --run."
            )
        run = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_file(run.config_file, to_yaml(config).encode())  # first: with it a run can be resumed
            run.checkpoints.mkdir()
        except OSError as error:
            raise RunError(
                f"the run folder {path} cannot be written ({error.strerror}): name another with --run."
            ) from error
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an existing run. Raises RunError where it is none."""
        run = cls(path)
        if not run.config_file.is_file():
            saved = (path / "config.json").is_file()
            what = ", only a network without classes and data, from which trevsnn train --init begins" if saved else ""
            raise RunError(f"{path} is no run: it holds no config.yaml{what}; give a folder that trevsnn train made.")
        return run

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
            return parse_config([f"--config={self.config_file}"])
        except (ArgumentError, ValueError, TypeError, OSError) as error:
            first = str(error).splitlines()[0]
            raise RunError(f"{self.config_file} is damaged ({first}): mend it, or train anew.") from error

    def change_config(self, config: RunConfig, notes: Sequence[str]) -> None:
        """Write another config in the place of the run's, with a note of each change. Raises RunError where that fails."""
        comments = "".join(f"# {note}\n" for note in [*self.notes(), *notes])
        write_file(self.config_file, (comments + to_yaml(config)).encode())

    def notes(self) -> list[str]:
        """What was changed in the run's config since it was begun."""
        lines = self.config_file.read_text().splitlines()
        return [line[2:] for line in lines if line.startswith("# after step ")]

    def ended(self, epochs: int) -> dict[str, Any] | None:
        """The content of summary.json, if the run has ended after so many epochs; None otherwise."""
        try:
            summary = json.loads((self.path / "summary.json").read_text())
        except (OSError, ValueError):
            return None
        return summary if summary.get("epochs") == epochs else None
