"""The page of all commands: their options from the parser itself, put in place of ``<!-- commands -->``. A hook of MkDocs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

from trevsnn.run.own_pictures import BASE
from trevsnn.run.recipes import DEFAULT_RECIPE

ROLE = re.compile(r":\w+:`([^`]+)`")  # of docstrings
OPTION = re.compile(r"(?<![`\w-])(--[\w.]*\w)(?![\w`])")
PLACE = "<!-- commands -->"
#: What jsonargparse says of an option that stands for a whole group, such as --model beside --model.channels.
OF_A_GROUP = "Path to a configuration file."
#: What stands above the table of trevsnn train, whose defaults are those of the config's classes.
BELOW = (
    f"Without `--config` or `--recipe` the recipe `{DEFAULT_RECIPE}` counts, or where `--data.root` names a folder of pictures "
    f"`{BASE}` and what is chosen from the pictures: they set other values than the defaults below, which hold for what the "
    "recipe or the file does not say. `--print_config` prints what counts."
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    return markdown.replace(PLACE, "\n\n".join(all_commands())) if PLACE in markdown else markdown


def all_commands() -> Iterator[str]:
    """The Markdown of each command, as ``trevsnn --help`` has them in their order."""
    from trevsnn.cli.main import build_parser

    for name, parser in commands(build_parser(), "trevsnn"):
        yield f"## {name}\n\n{parser.description}"
        if name == "trevsnn train":
            yield BELOW
        yield from _tables(parser)


def commands(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command's whole name and parser; of a group its members."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield name, parser
    for group in groups:
        for member, own in group.choices.items():
            yield from commands(own, f"{name} {member}")


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What the command takes, in the order of its help; those of a config by their dotted names."""
    shown = [action for action in parser._actions if action.help is not argparse.SUPPRESS]
    return [action for action in shown if action.dest != "help" and "--help" not in "".join(action.option_strings)]


def _tables(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A table for the command's own options, and one for each group of a config's."""
    groups: dict[str, list[argparse.Action]] = {}
    for action in options(parser):
        group, dot, _ = action.dest.partition(".")
        groups.setdefault(group if dot and action.option_strings else "", []).append(action)
    for group, actions in groups.items():
        rows = [f"| {_name(action)} | {_default(action)} | {_text(action)} |" for action in actions]
        heading = f"### --{group}.*\n\n" if group else ""
        yield heading + "\n".join(["| option | default | |", "|---|---|---|", *rows])


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar or action.dest.upper()}`"
    return ", ".join(f"`{word}`" for word in action.option_strings)


def _default(action: argparse.Action) -> str:
    default = action.default
    if default in (None, argparse.SUPPRESS) or not action.option_strings or action.nargs == 0:
        return "required" if action.required and action.option_strings else ""
    words = " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
    return f"`{words}`" if words else ""


def _text(action: argparse.Action) -> str:
    text = ROLE.sub(r"`\1`", " ".join((action.help or "").split()))
    text = OPTION.sub(r"`\1`", text)
    if text == OF_A_GROUP:
        text = f"YAML file of some of the options `--{action.dest}.*` below, by their names without `--{action.dest}.`"
    choices = f" One of {', '.join(f'`{choice}`' for choice in action.choices)}." if action.choices else ""
    return (text + choices).replace("%%", "%").replace("|", "\\|").replace("<", "&lt;")
