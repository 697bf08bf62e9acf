"""The command line: train, evaluate, predict, export, stream, measure, data.

Exit codes: 0 done, 1 failure, 2 wrong usage. Errors are one sentence on stderr; ``--debug`` adds the traceback.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from trevsnn import __version__
from trevsnn.cli.data import add_data_commands, run_data
from trevsnn.cli.deploy import add_deploy_commands, run_export, run_stream
from trevsnn.cli.measure import add_measure_commands, run_measure
from trevsnn.deploy import ENGINES
from trevsnn.errors import RunError, UsageError
from trevsnn.run.config import RunConfig, recipe_names, recipe_yaml


def build_parser() -> ArgumentParser:
    """The parser of all commands."""
    parser = ArgumentParser(
        prog="trevsnn", version=__version__, exit_on_error=False, allow_abbrev=False,
        description="Train and run temporal reversible spiking neural networks.",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    commands = parser.add_subcommands(required=True, dest="command")

    train = ArgumentParser(
        exit_on_error=False,
        allow_abbrev=False,
        description="Train a network; without arguments, on handwritten digits.",
    )
    train.add_argument("--config", action=ActionConfigFile, help="YAML file to begin from.")
    # Replaced by --config before parsing; it stands here for --help.
    train.add_argument("--recipe", choices=recipe_names(), help="Shipped config to begin from (default: digits).")
    train.add_argument("--run", type=Path | None, help="Folder to make for the run (default: runs/RECIPE, numbered).")
    train.add_argument("--resume", type=Path | None, metavar="RUN", help="Go on with this interrupted run.")
    train.add_class_arguments(RunConfig)
    commands.add_subcommand("train", train, help="train a network")

    evaluate = ArgumentParser(exit_on_error=False, allow_abbrev=False, description="Measure a trained run's accuracy.")
    evaluate.add_argument(
        "run",
        type=Path,
        help="Folder of the run or its export, or digits, fashion-mnist or n-mnist, which come trained.",
    )
    evaluate.add_argument(
        "--split", choices=["train", "val", "test"], help="Part of the data (default: test, else val)."
    )
    commands.add_subcommand("evaluate", evaluate, help="measure a trained run's accuracy")

    predict = ArgumentParser(
        exit_on_error=False, allow_abbrev=False, description="Classify pictures or recordings with a trained run."
    )
    predict.add_argument(
        "run",
        type=Path,
        help="Folder of the run or its export, or digits, fashion-mnist or n-mnist, which come trained.",
    )
    predict.add_argument("files", type=Path, nargs="+", help="Pictures, or recordings for a run on events.")
    commands.add_subcommand("predict", predict, help="classify pictures or recordings")
    for command in (evaluate, predict):
        command.add_argument(
            "--weights", choices=["last", "best"], default="last", help="Of the last or the best epoch."
        )
        command.add_argument("--accelerator", choices=["auto", "cpu", "cuda", "mps"], default="auto")
        command.add_argument("--engine", choices=list(ENGINES), default="eager", help="How to compute.")
        command.add_argument("--json", action="store_true", help="Print JSON.")
    add_deploy_commands(commands)
    measure = ArgumentParser(exit_on_error=False, allow_abbrev=False, description="Measure training.")
    commands.add_subcommand("measure", measure, help="measure memory and speed of training")
    add_measure_commands(measure)
    data = ArgumentParser(exit_on_error=False, allow_abbrev=False, description="Prepare and check data sets.")
    commands.add_subcommand("data", data, help="prepare and check data sets")
    add_data_commands(data)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module="(torch|lightning|timm)")
    try:
        _run(_expand_recipe(arguments))
        return 0
    except (ArgumentError, UsageError) as error:
        return _fail(error, 2, debug)
    except (RunError, OSError) as error:
        return _fail(error, 1, debug)
    except SystemExit as exit_:  # --help and --version
        return int(exit_.code or 0)
    except KeyboardInterrupt:
        print("trevsnn: interrupted; go on with trevsnn train --resume RUN.", file=sys.stderr)
        return 130
    except Exception as error:
        return _fail(
            error, 1, debug, f"unexpected {type(error).__name__}: ", "; run again with --debug for the traceback."
        )


def _fail(error: BaseException, code: int, debug: bool, before: str = "", after: str = "") -> int:
    if debug:
        traceback.print_exception(error)
    message = " ".join(str(error).split())
    print(f"trevsnn: error: {before}{message}{after}", file=sys.stderr)
    return code


def _expand_recipe(arguments: list[str]) -> list[str]:
    """Replace ``--recipe NAME`` by the recipe's text, and begin from digits where neither it nor a config is given."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    if words[:1] != ["train"]:
        return arguments
    start = arguments.index("train") + 1
    expanded: list[str] = []
    rest = iter(arguments[start:])
    for argument in rest:
        if argument == "--recipe" or argument.startswith("--recipe="):
            name = argument.partition("=")[2] or next(rest, "")
            try:
                expanded += ["--config", recipe_yaml(name)]
            except ValueError as error:
                raise UsageError(str(error)) from error
        else:
            expanded.append(argument)
    options = {argument.partition("=")[0] for argument in expanded}
    if not options & {"--config", "--resume", "--help", "-h"}:
        expanded = ["--config", recipe_yaml("digits"), *expanded]
    return [*arguments[:start], *expanded]


def _run(arguments: list[str]) -> None:
    parser = build_parser()
    options = parser.parse_args([a for a in arguments if a != "--debug"])
    command = options.command
    with _config_checks():
        values = parser.instantiate(options)[command]
    {
        "train": _train, "evaluate": _evaluate, "predict": _predict, "measure": _measure, "data": _data,
        "export": _export, "stream": _stream,
    }[command](values, arguments)  # fmt: skip


@contextlib.contextmanager
def _config_checks() -> Iterator[None]:
    """What a config's own checks refuse is wrong usage."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def _train(options: Namespace, arguments: list[str]) -> None:
    from trevsnn.run.folder import RunFolder
    from trevsnn.train.processes import is_first
    from trevsnn.train.train import resume, train

    console = Console(quiet=not is_first())
    if options.resume is not None:
        extra = [
            a
            for a in arguments[arguments.index("train") + 1 :]
            if a.startswith("--") and a.partition("=")[0] != "--resume"
        ]
        if set(extra) - {"--debug"}:
            raise UsageError(f"--resume goes on with the run's own config: leave out {', '.join(extra)}.")
        folder, summary = options.resume, resume(options.resume, console)
    else:
        with _config_checks():
            config = RunConfig(**{name: options[name] for name in RunConfig.__dataclass_fields__})
        folder = options.run or RunFolder.next_free(config.data.name)
        summary = train(config, folder, console)
    console.print(
        f"done: {folder}  last accuracy {summary['last_accuracy']:.2%}  best {summary['best_accuracy']:.2%} "
        f"(epoch {summary['best_epoch']})  {summary['seconds']:.0f} s", highlight=False, soft_wrap=True,
    )  # fmt: skip


def _evaluate(options: Namespace, arguments: list[str]) -> None:
    from trevsnn.deploy.inference import evaluate_run

    result = evaluate_run(options.run, options.split, options.weights, options.accelerator, options.engine)
    if options.json:
        print(json.dumps(result))
        return
    table = Table(title=f"{result['run']}, {result['checkpoint']}, {result['items']} {result['split']} items")
    levels = [f"rate, level {i}" for i in range(len(result["firing_rates"]))]
    for name in ("accuracy", "loss", *levels):
        table.add_column(name, justify="right")
    table.add_row(f"{result['accuracy']:.2%}", f"{result['loss']:.4f}", *(f"{r:.1%}" for r in result["firing_rates"]))
    Console().print(table)


def _predict(options: Namespace, arguments: list[str]) -> None:
    from trevsnn.deploy.inference import predict_run

    rows = predict_run(options.run, options.files, options.weights, options.accelerator, options.engine)
    if options.json:
        print(json.dumps(rows))
        return
    table = Table("file", "class", "probability")
    for row in rows:
        table.add_row(row["file"], row["class"], f"{row['probability']:.1%}")
    Console().print(table)


def _export(options: Namespace, arguments: list[str]) -> None:
    run_export(options)


def _stream(options: Namespace, arguments: list[str]) -> None:
    run_stream(options)


def _data(options: Namespace, arguments: list[str]) -> None:
    run_data(options)


def _measure(options: Namespace, arguments: list[str]) -> None:
    with _config_checks():
        run_measure(options)


if __name__ == "__main__":
    sys.exit(main())
