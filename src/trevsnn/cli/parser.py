"""How a function becomes a command: its options from its signature, their help from its docstring."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import docstring_parser
from jsonargparse import ArgumentParser, Namespace

from trevsnn.errors import UsageError
from trevsnn.plain_yaml import PLAIN
from trevsnn.sizes import join_sizes


class Parser(ArgumentParser):
    """The options of one command.

    Parameters without a default are positional, unless they are keyword-only. A bool is a flag. A ``Sequence`` takes one
    value or several, ``--timesteps 4 8``; a tuple none, too.

    Args:
        command: the function that runs the command; None for a parser of further commands.
        skip: parameters that are no options.
        settings: of :class:`jsonargparse.ArgumentParser`.
    """

    def __init__(self, command: Callable[..., None] | None = None, skip: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(exit_on_error=False, allow_abbrev=False, print_config=None, parser_mode=PLAIN, **settings)
        if command is not None:
            self._add_command(command, skip)

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **settings: Any) -> Namespace:  # type: ignore[override]
        """As of :class:`jsonargparse.ArgumentParser`; sizes may be two words."""
        words = sys.argv[1:] if args is None else args
        return super().parse_args(join_sizes(words), *rest, **settings)

    def _add_command(self, command: Callable[..., None], skip: Sequence[str]) -> None:
        docstring = docstring_parser.parse(command.__doc__ or "")
        self.description = docstring.short_description
        help_of = {parameter.arg_name: parameter.description for parameter in docstring.params}
        signature = inspect.signature(command, eval_str=True).parameters
        parameters = {name: parameter for name, parameter in signature.items() if name not in skip}
        flags = [name for name, parameter in parameters.items() if parameter.annotation is bool]
        values = {name: _values(parameter.annotation) for name, parameter in parameters.items()}
        values = {name: settings for name, settings in values.items() if settings}
        self.add_function_arguments(command, as_group=False, as_positional=True, skip={*skip, *flags, *values})
        for name, settings in values.items():
            default = parameters[name].default
            if parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY:
                self.add_argument(name, help=help_of[name], **settings)
            else:
                if default is inspect.Parameter.empty:
                    settings["required"] = True
                else:
                    settings["default"] = list(default) if isinstance(default, tuple) else default
                self.add_argument(f"--{name}", help=help_of[name], **settings)
        for name in flags:
            self.add_argument(f"--{name}", action="store_true", help=help_of[name])


def with_underscores(word: str) -> str:
    """An option's name as it is listed, ``--window_ms``, where it is spelled with dashes, ``--window-ms``. Values are left alone."""
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if name.startswith("--") else word


class AsWritten:
    """Reads a path as it is written. jsonargparse would read it as YAML first, which fails where a name is no UTF-8."""

    def __call__(self, name: str) -> Path:
        if not name:  # of a variable that is not set; a path of nothing would be the working folder
            raise argparse.ArgumentTypeError("an empty text names no file or folder.")
        return Path(name)

    def __repr__(self) -> str:
        return "path"  # for the help


def _values(annotation: Any) -> dict[str, Any]:
    """What argparse is to know of the values of ``Path``, ``Sequence[X]``, ``tuple[X, ...]``, ``tuple[X, X]`` and
    ``Literal[...]``, or of these or None: their number, and their type or the choices. Else nothing."""
    if NoneType in get_args(annotation):
        annotation = get_args(annotation)[0]
    if annotation is Path:
        return {"type": AsWritten()}
    kind = get_origin(annotation)
    if kind is Literal:
        return {"choices": list(get_args(annotation))}
    if kind not in (Sequence, tuple):
        return {}
    item, *others = get_args(annotation)
    number = "+" if kind is Sequence else "*" if others == [...] else 1 + len(others)
    return {"nargs": number, **(_values(item) or {"type": item})}


@contextlib.contextmanager
def refusals_are_usage_errors() -> Iterator[None]:
    """What a config's own checks refuse is wrong usage."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
