"""The command line: train, evaluate, predict, export, stream, measure, data.

Exit codes: 0 done, 1 failure, 2 wrong usage, 130 interrupted, 141 nobody reads the output, 143 ended by SIGTERM. Errors are one sentence on stderr, or a
line for each of several mistakes; ``--debug`` adds the traceback. What takes long to load is imported by the functions that
need it, so that help and errors of usage come at once.
"""

from __future__ import annotations

import argparse
import logging
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from jsonargparse import ArgumentError, Namespace

from trevsnn.cli import data, deploy, look, measure
from trevsnn.cli.evaluate import evaluate, predict
from trevsnn.cli.parser import Parser, with_underscores
from trevsnn.cli.train import mistakes, run_train, train_parser
from trevsnn.data.overrides import DataOverrides
from trevsnn.errors import Interrupted, MistakesError, RunError, UsageError
from trevsnn.terminal import any_encoding, discard_output, visible
from trevsnn.train.interrupt import speaks
from trevsnn.version import __version__

Commands = Mapping[str, Callable[..., None]]

# What the parser says of a number out of its range: "v>0", amid all the types that an option may have.
_OUT_OF_RANGE = re.compile(r'(?s)^Parser key "([\w.]+)":.*?does not conform to restriction v([<>=]+[\d.]+).*')

COMMANDS: Commands = {"evaluate": evaluate, "predict": predict, "export": deploy.export, "stream": deploy.stream}
GROUPS: Mapping[str, tuple[str, Commands]] = {
    "measure": (
        "Measure memory, speed and energy.",
        {"memory": measure.memory, "speed": measure.speed, "energy": measure.energy},
    ),
    "data": (
        "Prepare, check and look at data sets.",
        {"prepare": data.prepare, "check": data.check, "show": look.show, "list": look.list_},
    ),
}


@cache  # making it takes longer than what it does
def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="trevsnn",
        version=__version__,
        description="Train and run temporal reversible spiking neural networks.",
        parents=[_debug_parser()],
    )
    commands = parser.add_subcommands(required=True, dest="command")
    parsers = {"train": train_parser(), **{name: Parser(command) for name, command in COMMANDS.items()}}
    for name, command in parsers.items():
        commands.add_subcommand(name, command, help=command.description)
    for name, (description, members) in GROUPS.items():
        group = Parser(description=description)
        commands.add_subcommand(name, group, help=description)
        subcommands = group.add_subcommands(required=True, dest="command")
        for member, command in members.items():
            own = Parser(command)
            subcommands.add_subcommand(member, own, help=own.description)
    return parser


def _debug_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with any_encoding():
        try:
            code = _main(argv)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where it can be told that nobody reads it
        except BrokenPipeError:
            discard_output()
            code = 128 + signal.SIGPIPE
        return code


def _main(argv: Sequence[str] | None) -> int:
    debug = False
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # of a home folder that it cannot write to
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module="(torch|lightning|timm)")
    plain, warnings.formatwarning = warnings.formatwarning, _warning_sentence
    try:
        # Before everything else, so that errors of usage show their traceback too, wherever --debug stands.
        options, arguments = _debug_parser().parse_known_args(argv)
        debug = options.debug
        _run([with_underscores(word) for word in arguments])
        return 0
    except (ArgumentError, UsageError) as error:
        return _fail(error, 2, debug)
    except BrokenPipeError:
        raise
    except (RunError, OSError) as error:
        return _fail(error, 1, debug)
    except SystemExit as exit_:  # --help and --version
        return int(exit_.code or 0)
    except Interrupted as interrupted:
        if speaks():
            print(f"trevsnn: {visible(str(interrupted))}", file=sys.stderr)
        return 128 + interrupted.number
    except KeyboardInterrupt:
        print("trevsnn: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        text = f"unexpected {type(error).__name__}: {error}; run again with --debug for the traceback."
        return _fail(error, 1, debug, text)
    finally:
        warnings.formatwarning = plain


def _warning_sentence(message: Warning | str, *_: object, **__: object) -> str:
    return f"trevsnn: warning: {visible(str(message))}\n"


def _fail(error: BaseException, code: int, debug: bool, text: str | None = None) -> int:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, MistakesError) and len(error.sentences) > 1:
        lines = [f"{len(error.sentences)} mistakes:", *error.sentences]
    else:
        lines = [text or _OUT_OF_RANGE.sub(r"--\1 must be a number \2.", str(error))]
    one_line = (
        re.sub(r"\s*\n\s*", " ", line.strip()) for line in lines
    )  # libraries have several; names keep their spaces
    print("trevsnn: error: " + "\n  ".join(map(visible, one_line)), file=sys.stderr)
    return code


def _run(arguments: Sequence[str]) -> None:
    # Without defaults: a command's own are those of its function, and train knows what it was given.
    try:
        options = build_parser().parse_args(arguments, defaults=False)
    except (ArgumentError, UsageError) as error:
        if list(arguments[:1]) == ["train"]:
            raise mistakes(arguments[1:], error) from error
        raise
    values = options[options.command]
    if options.command == "train":
        run_train(values, arguments[1:])
    elif options.command in COMMANDS:
        COMMANDS[options.command](**_arguments(values))
    else:
        _, members = GROUPS[options.command]
        members[values.command](**_arguments(values[values.command]))


def _arguments(values: Namespace) -> dict[str, object]:
    """A command's options as its function takes them, those of data as one, without the place of a file that had them."""
    return {
        name: DataOverrides(**vars(value)) if isinstance(value, Namespace) else value
        for name, value in vars(values.clone(with_meta=False)).items()
    }
