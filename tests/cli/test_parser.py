"""Options from signatures."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonargparse import ArgumentError

from trevsnn.cli.main import COMMANDS, GROUPS, main
from trevsnn.cli.parser import Parser, refusals_are_usage_errors
from trevsnn.cli.types import OpenUnitInterval, PositiveInt
from trevsnn.errors import UsageError


def command(
    run: Path,
    files: Sequence[Path],
    *,
    out: Path,
    kinds: tuple[Literal["a", "b"], ...] = ("a", "b"),
    sizes: Sequence[PositiveInt] = (4,),
    sensor: tuple[PositiveInt, PositiveInt] | None = None,
    rates: Sequence[OpenUnitInterval] | None = None,
    weights: Literal["last", "best"] = "last",
    json: bool = False,
) -> None:
    """Do something.

    Args:
        run: Where.
        files: Which ones,
            on two lines.
        out: Where to.
        kinds: Kinds.
        sizes: Sizes.
        sensor: Width and height.
        rates: Rates.
        weights: Which weights.
        json: Print JSON.
    """


def parse(*arguments: str, defaults: bool = False) -> dict[str, Any]:
    return vars(Parser(command).parse_args(arguments, defaults=defaults))


def test_a_signature_makes_the_options():
    needed = {"run": Path("r"), "files": [Path("f"), Path("g")], "out": Path("o")}
    assert parse("r", "f", "g", "--out", "o") == needed
    assert parse("r", "f", "g", "--out", "o", defaults=True) == {
        **needed, "kinds": ["a", "b"], "sizes": [4], "sensor": None, "rates": None, "weights": "last", "json": False,
    }  # fmt: skip
    given = ["--kinds", "--sizes", "8", "2", "--sensor", "34", "33", "--rates", "0.5", "--weights=best", "--json"]
    assert parse("r", "f", "g", "--out", "o", *given) == {
        **needed, "kinds": [], "sizes": [8, 2], "sensor": [34, 33], "rates": [0.5], "weights": "best", "json": True,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["null", "1e3", "[a]", "{", "a: b", "caf\udce9"])
def test_a_path_is_taken_as_it_is_written(name):
    """Though some of these are something else in YAML, and the last is of bytes that are no UTF-8."""
    found = parse(name, name, "--out", name)
    assert (found["run"], found["files"], found["out"]) == (Path(name), [Path(name)], Path(name))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--kinds", "c"], "c"),
        (["--sizes"], "sizes"),
        (["--sizes", "3", "0"], "sizes"),
        (["--sensor", "3"], "sensor"),
        (["--sensor", "3", "0"], "sensor"),
        (["--rates", "1"], "rates"),
        (["--json", "true"], "true"),
        (["--weight", "last"], "unrecognized arguments: --weight last"),
    ],
)
def test_what_the_signature_does_not_allow_is_refused(more, message):
    with pytest.raises(ArgumentError, match=message):
        parse("r", "f", "--out", "o", *more)
    with pytest.raises(ArgumentError, match="required: out"):
        parse("r", "f")


def test_help_is_the_docstring(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "Do something." in text
    assert "files Which ones, on two lines." in text
    assert "--json Print JSON." in text


def test_every_command_says_what_its_options_are():
    commands = {**COMMANDS, **{name: c for _, members in GROUPS.values() for name, c in members.items()}}
    assert len(commands) == 11
    for name, function in commands.items():
        parser = Parser(function)
        assert parser.description, name
        assert all(action.help for action in parser._actions), name


@pytest.mark.parametrize("arguments", [["--debug", "evaluate", "nowhere"], ["measure", "--debug", "energy", "nowhere"],
                                       ["train", "--epochs", "0", "--debug"], ["evaluate", "--debug", "--engine", "x"]])  # fmt: skip
def test_debug_stands_anywhere(arguments, capsys):
    code = main(arguments)
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("trevsnn: error: ")
    assert main([a for a in arguments if a != "--debug"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_refused_value_is_wrong_usage():
    with pytest.raises(UsageError, match="too small"), refusals_are_usage_errors():
        raise ValueError("too small")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "x", "--split", "nope"], r"argument --split: invalid choice: 'nope' \(choose from .*train.*test"),
        (
            ["evaluate", "x", "--engine", "gpu"],
            r"argument --engine: invalid choice: 'gpu' \(choose from .*eager.*spikes",
        ),
        (
            ["export", "x", "--formats", "onnx", "gif"],
            r"argument --formats: invalid choice: 'gif' \(choose from .*onnx",
        ),
        (["measure", "memory", "--modes", "fast"], r"argument --modes: invalid choice: 'fast' \(choose from .*exact"),
        (["data", "prepare", "cifar"], r"argument set: invalid choice: 'cifar' \(choose from .*imagenet"),
    ],
)
def test_a_choice_that_there_is_not_is_refused_with_those_that_there_are(capsys, arguments, message):
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)
