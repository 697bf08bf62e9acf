"""Reading the options of a command line and of the files it names one by one, so that every one that is wrong is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError

from trevsnn.errors import UsageError
from trevsnn.run.config import RunConfig, config_parser
from trevsnn.run.config_file import SECTIONS, read_content
from trevsnn.run.options import Option, flatten, nearest, nest, types_of, unknown_option, wrong_value
from trevsnn.run.recipes import recipe_yaml


@dataclass
class Reading:
    """What was read.

    Attributes:
        values: those that can be read, by dotted names.
        wrong: names of those that cannot.
        sentences: what is wrong with them, and with names that there are not.
        from_files: the values of configs and recipes alone.
        files: whether there are any of these.
        begun: whether all of these could be read.
    """

    values: dict[str, Any] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    sentences: list[str] = field(default_factory=list)
    from_files: dict[str, Any] = field(default_factory=dict)
    files: bool = False
    begun: bool = True

    def __post_init__(self) -> None:
        self.types, self.parser = types_of(RunConfig), config_parser()

    def take_file(self, option: Option) -> None:
        """The values of a config or a recipe."""
        self.files = True
        try:
            content = _content(option)
        except UsageError as error:
            self.sentences.append(str(error))
            self.begun = False
            return
        where = f"{option.value}: " if option.name == "config" else ""
        for name, value in flatten(content).items():
            if name in SECTIONS:
                self.sentences.append(f"{where}{name} is {value!r}; it must hold options, NAME: VALUE.")
            elif name not in self.types:
                self.take_unknown(name, list(self.types), where, dashes="")
            else:
                self.take(name, value, where)
                self.from_files |= {name: self.values[name]} if name in self.values else {}

    def take(self, name: str, value: Any, where: str = "") -> None:
        """The value of one option, a text of the command line or a value of a file."""
        try:
            if isinstance(value, str):
                parsed = self.parser.parse_args([f"--{name}={value}"], defaults=False)
            else:
                parsed = self.parser.parse_object(nest({name: value}), defaults=False)
        except ArgumentError:
            self.sentences.append(where + wrong_value(name, value, self.types[name]))
            self.wrong.add(name)
            return
        self.values[name] = parsed[name]

    def take_unknown(self, name: str, known: Sequence[str], where: str = "", dashes: str = "--") -> None:
        """A name that there is not. What it may have meant counts as wrong, so that nothing is said of its default."""
        near = nearest(name, known)
        self.sentences.append(where + unknown_option(name, near, dashes))
        self.wrong |= {near} if near else set()

    def take_section(self, name: str, value: str | None) -> None:
        """The options of a section in one, ``--optim '{lr: 0.1}'``, or a file with them."""
        try:
            parsed = self.parser.parse_args([f"--{name}={value}"], defaults=False)
        except ArgumentError as error:
            self.sentences.append(
                f"--{name} cannot be read ({str(error).splitlines()[0]}): give its options one by one."
            )
            self.wrong |= {other for other in self.types if other.startswith(f"{name}.")}
            return
        self.values |= vars(parsed.as_flat())


def read_options(given: Sequence[Option], others: Mapping[str, bool]) -> Reading:
    """Read options in their order, so that later ones win.

    Args:
        given: of a command line.
        others: options that are not the config's by name, and whether each takes a value.
    """
    reading = Reading()
    known = [*reading.types, *SECTIONS, *others, "config", "recipe"]
    for option in given:
        name, value = option
        if name == "":
            reading.sentences.append(f"{value!r} belongs to no option: options are --NAME VALUE.")
        elif name in ("config", "recipe"):
            reading.take_file(option)
        elif name not in known:
            reading.take_unknown(name, known)
        elif value is None and others.get(name, True):
            reading.sentences.append(f"--{name} stands without a value: give it one.")
            reading.wrong.add(name)
        elif name in SECTIONS:
            reading.take_section(name, value)
        elif name not in others:
            assert value is not None
            reading.take(name, value)
    return reading


def wrong_values(content: Mapping[str, Any]) -> list[str]:
    """Sentences on the values of a config, whose names are those of options, that their options cannot take."""
    reading = Reading()
    for name, value in flatten(content).items():
        reading.take(name, value)
    return reading.sentences


def _content(option: Option) -> dict[str, Any]:
    """What is in a config's file, or a recipe. Raises UsageError where that cannot be said."""
    if option.name == "recipe":
        return yaml.safe_load(recipe_yaml(option.value or ""))
    if option.value is None:
        raise UsageError("--config names no file: give --config FILE.")
    return read_content(Path(option.value))[1]
