"""The options of a run's config one by one: their types, their values on a command line, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from trevsnn.sizes import join_sizes


class Option(NamedTuple):
    """An option as it stands on a command line: its name without dashes, and its value, None where it has none."""

    name: str
    value: str | None


def split_options(arguments: Sequence[str], flags: Container[str] = ()) -> list[Option]:
    """The options of a command line, in their order. What belongs to none is an option without a name.

    Args:
        arguments: ``--name value`` or ``--name=value``.
        flags: names of options that take no value.
    """
    found: list[Option] = []
    rest = join_sizes(arguments)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            found.append(Option("", token))
            continue
        name, equals, value = token.removeprefix("--").partition("=")
        if equals:
            found.append(Option(name, value))
        elif name not in flags and rest and not rest[0].startswith("--"):
            found.append(Option(name, rest.pop(0)))
        else:
            found.append(Option(name, None))
    return found


def types_of(config: type) -> dict[str, Any]:
    """The types of a config's options by their dotted names; those of the configs in it in place of them."""
    found: dict[str, Any] = {}
    for name, kind in get_type_hints(config).items():
        if is_dataclass(kind):
            found |= {f"{name}.{inner}": inner_kind for inner, inner_kind in types_of(kind).items()}  # type: ignore[arg-type]
        else:
            found[name] = kind
    return found


def flatten(values: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flatten(value, f"{start}{name}.") if isinstance(value, Mapping) else {f"{start}{name}": value}
    return found


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`flatten`, for names of one or two words."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        section, _, field = name.rpartition(".")
        (found.setdefault(section, {}) if section else found)[field] = value
    return found


def wrong_value(name: str, value: Any, kind: Any) -> str:
    """A sentence on a value that an option cannot take, with the nearest choice."""
    choices = [str(choice) for choice in _choices(kind)]
    if not choices:
        return f"{name} is {value!r}; it must be {_expected(kind)}."
    near = get_close_matches(str(value), choices, 1, 0.5)
    also = ", or null" if NoneType in get_args(kind) else ""
    meant = f": did you mean {near[0]}?" if near else "."
    return f"{name} is {value!r}; it must be one of {', '.join(choices)}{also}{meant}"


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The option that a name that there is not may mean: with the same last word, or else written alike."""
    same = [other for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]]
    return next(iter(same or get_close_matches(name, known, 1, 0.7)), None)


def unknown_option(name: str, near: str | None, dashes: str = "--") -> str:
    """A sentence on an option that there is not, with the one that it may mean."""
    meant = f": did you mean {dashes}{near}?" if near else "; trevsnn train --help lists all."
    return f"there is no option {dashes}{name}{meant}"


def _choices(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return tuple(choice for part in get_args(kind) for choice in _choices(part))
    return ()


def _expected(kind: Any) -> str:
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}
    if kind in plain:
        return plain[kind]
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_expected(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        count = "a list of" if inner[-1] is Ellipsis else str(len(inner))
        return f"{count} whole numbers, such as [{', '.join(['64'] * (2 if inner[-1] is Ellipsis else len(inner)))}]"
    return f"of type {kind}"
