"""``trevsnn train``."""

from __future__ import annotations

import inspect
from pathlib import Path

from jsonargparse import Namespace

from trevsnn.cli.parser import Parser, refusals_are_usage_errors
from trevsnn.errors import UsageError
from trevsnn.run.config import RunConfig, add_config_options, config_of, to_yaml
from trevsnn.run.folder import RunFolder
from trevsnn.terminal import Terminal


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
        resume: Folder of an interrupted run to go on with.
        print_config: Print the whole config in the form --config reads, and train nothing.
    """
    if resume is not None:
        unwanted = given.get("config") or [f"--{name}" for name in given.keys()]  # noqa: SIM118 - nested names, too
        unwanted += ["--run"] * (run is not None) + ["--print_config"] * print_config
        if unwanted:
            raise UsageError(f"--resume goes on with the run's own config: leave out {', '.join(unwanted)}.")
        _train(resume, None)
        return
    with refusals_are_usage_errors():
        config = config_of(given)
    if print_config:
        print(to_yaml(config), end="")
    else:
        _train(run or RunFolder.next_free(config.data.name), config)


def _train(folder: Path, config: RunConfig | None) -> None:
    """Begin a run, or go on with it where no config is given, and print how it ended."""
    from trevsnn.train.processes import is_first
    from trevsnn.train.train import resume, train

    console = Terminal(quiet=not is_first())
    summary = resume(folder, console) if config is None else train(config, folder, console)
    console.print(
        f"done: {folder}  last accuracy {summary['last_accuracy']:.2%}  best {summary['best_accuracy']:.2%} "
        f"(epoch {summary['best_epoch']})  {summary['seconds']:.0f} s", highlight=False, soft_wrap=True,
    )  # fmt: skip
