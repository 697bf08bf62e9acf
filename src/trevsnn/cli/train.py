"""``trevsnn train``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console

from trevsnn.cli.parser import Parser, refusals_are_usage_errors
from trevsnn.errors import UsageError
from trevsnn.run.changes import changed
from trevsnn.run.config import RunConfig, add_config_options, config_of, to_yaml
from trevsnn.run.folder import RunFolder
from trevsnn.train.interrupt import Interruption, speaks


def train_parser() -> Parser:
    """The options of :func:`train`, and those of a run's config."""
    parser = Parser(train, skip=["given"])
    add_config_options(parser)
    return parser


def run_train(values: Namespace) -> None:
    """:func:`train` with the parsed options; those that are not its own are the config's."""
    own = {name: values.pop(name) for name in inspect.signature(train).parameters if name in values}
    train(values, **own)


def train(given: Namespace, *, run: Path | None = None, resume: Path | None = None, print_config: bool = False) -> None:
    """Train a network; without arguments, on handwritten digits.

    Args:
        given: Options of the run's config.
        run: Folder to make for the run (default: runs/DATA, numbered).
        resume: Folder of an interrupted run to go on with, or of an ended one with more --epochs. Beside it --data.root,
            --data.cache, --data.workers and --accelerator can be given.
        print_config: Print the whole config in the form --config reads, and train nothing.
    """
    if resume is not None:
        _resume(resume, given, [*["--run"] * (run is not None), *["--print_config"] * print_config])
        return
    with refusals_are_usage_errors():
        config = config_of(given)
    if print_config:
        print(to_yaml(config), end="")
    else:
        _train(run or RunFolder.next_free(config.data.name), config)


def _resume(folder: Path, given: Namespace, unwanted: list[str]) -> None:
    unwanted = [*(given.get("config") or []), *unwanted]
    if unwanted:
        raise UsageError(f"--resume goes on with the run's own config: leave out {', '.join(unwanted)}.")
    changes = dict(given.items())
    run = RunFolder.open(folder)
    epochs = changed(run.read_config(), changes).epochs
    if (summary := run.ended(epochs)) is None:
        _train(folder, None, changes)
    elif speaks():
        print(
            f"{folder} has ended already, after {epochs} epochs, with accuracy {summary['last_accuracy']:.2%}: train it "
            f"longer with trevsnn train --resume {folder} --epochs N"
        )


def _train(folder: Path, config: RunConfig | None, changes: Mapping[str, Any] | None = None) -> None:
    """Begin a run, or go on with it where no config is given, and print how it ended."""
    with Interruption(folder if config is None else None):
        from trevsnn.train.processes import is_first
        from trevsnn.train.train import resume, train

        console = Console(quiet=not is_first())
        summary = train(config, folder, console) if config else resume(folder, console, changes=changes)
    console.print(
        f"done: {folder}  last accuracy {summary['last_accuracy']:.2%}  best {summary['best_accuracy']:.2%} "
        f"(epoch {summary['best_epoch']})  {summary['seconds']:.0f} s", highlight=False, soft_wrap=True,
    )  # fmt: skip
