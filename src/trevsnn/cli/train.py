"""``trevsnn train``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from trevsnn.cli.parser import Parser
from trevsnn.errors import MistakesError, UsageError
from trevsnn.run.changes import changed, changes_by_hand, check_changeable
from trevsnn.run.config import RunConfig, add_config_options, config_of, shorten_warmup, to_yaml
from trevsnn.run.folder import RunFolder, resume_command
from trevsnn.run.recipes import DEFAULT_RECIPE
from trevsnn.run.sources import brought_by
from trevsnn.terminal import Terminal, TrainingTerminal, say, visible
from trevsnn.train.interrupt import Interruption, speaks

if TYPE_CHECKING:
    from trevsnn.run.misfits import Facts


NO_OPTIONS = ("given", "arguments")  # parameters of :func:`train`


def train_parser() -> Parser:
    """The options of :func:`train`, and those of a run's config."""
    parser = Parser(train, skip=NO_OPTIONS)
    add_config_options(parser)
    return parser


def run_train(values: Namespace, arguments: Sequence[str]) -> None:
    """:func:`train` with the parsed options; those that are not its own are the config's.

    Args:
        values: parsed options.
        arguments: as they stand on the command line, after ``train``.
    """
    train(values, arguments, **{name: values.pop(name) for name in own_options() if name in values})


def own_options() -> dict[str, bool]:
    """The options of :func:`train` that are not the config's, and whether they take a value."""
    parameters = inspect.signature(train, eval_str=True).parameters
    return {name: parameter.annotation is not bool for name, parameter in parameters.items() if name not in NO_OPTIONS}


def mistakes(arguments: Sequence[str], first: Exception) -> UsageError:
    """The error that tells all mistakes of a command line at once, or the one that was found first."""
    from trevsnn.run.mistakes import all_mistakes

    return MistakesError(all_mistakes(arguments, {**own_options(), "help": False}) or [str(first)])


def train(
    given: Namespace,
    arguments: Sequence[str],
    *,
    run: Path | None = None,
    resume: Path | None = None,
    print_config: bool = False,
) -> None:
    """Train a network; without arguments, on handwritten digits; with --data.root alone, on your own pictures.

    Args:
        given: Options of the run's config.
        arguments: The command line.
        run: Folder to make for the run (default: runs/DATA, numbered).
        resume: Folder of an interrupted run to go on with, or of an ended one with more --epochs. Beside it --data.root,
            --data.cache, --data.workers and --accelerator can be given.
        print_config: Print the whole config in the form --config reads, and train nothing.
    """
    if resume is not None:
        _resume(resume, given, [*["--run"] * (run is not None), *["--print_config"] * print_config])
        return
    config, facts, lines = _config(given, arguments)
    if print_config:
        print("".join(f"# {visible(line)}\n" for line in lines) + to_yaml(config), end="")
        return
    from trevsnn.run.misfits import facts_of, idle, misfits

    found = [*misfits(config, facts or facts_of(config.data)), *idle(config)]
    if found:
        raise MistakesError([misfit.sentence for misfit in found])
    _train(run or RunFolder.next_free(config.data.name), config, lines)


def _config(given: Namespace, arguments: Sequence[str]) -> tuple[RunConfig, Facts | None, list[str]]:
    """The config, what is known of the data by a look at them, and lines on what was chosen in the user's place.

    Raises:
        MistakesError: all of the command line, where a value is refused.
        RunError: the folder of one's own pictures cannot be trained on.
    """
    from trevsnn.run.own_pictures import as_yaml, choose, describe, facts_of_look, is_own_pictures, look_for

    options = vars(given.as_flat())
    brought = brought_by(options, own_pictures=is_own_pictures(options))
    try:
        if is_own_pictures(options):
            config_of(given, as_yaml(brought | {"optim.warmup_epochs": 0.0}))  # mistakes come first
            look = look_for(options)
            chosen = choose(brought | options, look)
            config = config_of(given, as_yaml(brought | chosen))
            return config, facts_of_look(look, chosen | options), describe(look, chosen, options.get("init"))
        warmup = shorten_warmup(given, arguments)
        shorter = (
            f"the warm-up is shorter in proportion to the epochs, {warmup}: --optim.warmup_epochs gives its length"
        )
        begin = as_yaml(brought, DEFAULT_RECIPE) if brought else None
        return config_of(given, begin), None, [] if warmup is None else [shorter]
    except (ValueError, TypeError) as error:
        raise mistakes(arguments, error) from error


def _resume(folder: Path, given: Namespace, unwanted: list[str]) -> None:
    unwanted = [*(given.get("config") or []), *unwanted]
    if unwanted:
        raise UsageError(f"--resume goes on with the run's own config: leave out {', '.join(unwanted)}.")
    changes = dict(given.items())
    check_changeable(changes)  # before the run is looked for
    run = RunFolder.open(folder)
    config = changed(run.read_config(), changes)
    epochs = config.epochs
    if (summary := run.ended(epochs)) is None:
        _train(folder, None, changes=changes)
    elif speaks():
        console = Terminal()
        for change in changes_by_hand(summary.get("config"), config):
            say(console, f"warning: {change} in config.yaml since the run ended: nothing is trained with that")
        say(
            console,
            f"{folder} has ended already, after {epochs} epochs, with accuracy {summary['last_accuracy']:.2%}: train it "
            f"longer with {resume_command(folder)} --epochs N",
        )


def _train(
    folder: Path, config: RunConfig | None, lines: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> None:
    """Print lines, then begin a run, or go on with it where no config is given, and print how it ended."""
    with Interruption(folder if config is None else None):
        from trevsnn.train.processes import is_first
        from trevsnn.train.train import resume, train

        console = TrainingTerminal(quiet=not is_first())
        for line in lines:
            say(console, line)
        summary = train(config, folder, console) if config else resume(folder, console, changes=changes)
    console.print(
        f"done: {folder}  last accuracy {summary['last_accuracy']:.2%}  best {summary['best_accuracy']:.2%} "
        f"(epoch {summary['best_epoch']})  {summary['seconds']:.0f} s", soft_wrap=True,
    )  # fmt: skip
