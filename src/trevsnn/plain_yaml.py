"""YAML that says what it says: of bounded size and depth, without anchors, aliases, tags, merged or repeated keys.

A few hundred bytes of aliases can stand for more than any memory holds, and a key that stands twice hides the first of the two.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_loader

from trevsnn.files import read_file

MOST = 100_000  # characters; a run's own config has two thousand
DEEPEST = 20

#: The name by which parsers of jsonargparse take their values so: ``ArgumentParser(parser_mode=PLAIN)``.
PLAIN = "plain_yaml"

_HALVES = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_FLOAT = re.compile(
    r"[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


# No octal numbers and no sexagesimal ones, which YAML 1.1 makes of 010 and 1:30: nobody means them.
_INT = re.compile(r"[-+]?(0|[1-9][\d_]*|0x[\da-fA-F][\da-fA-F_]*)")
_DIGITS = 100  # of a number, at most


class NotPlainError(yaml.YAMLError):
    """YAML that has what is refused here."""


def parse_yaml(text: str) -> Any:
    """What a text of YAML says, with numbers such as ``1e-3``, which YAML 1.1 takes for texts; dates, ``010`` and
    ``1:30`` are texts.

    Raises:
        yaml.YAMLError: it is none, or has what is refused here.
    """
    # Halves of characters, which stand for bytes of a file's name that is no UTF-8, are nothing that libyaml reads.
    quick = _HALVES.search(text) is None
    most, loader = MOST if quick else MOST // 10, _loader(quick=quick)
    if len(text) > most:
        raise NotPlainError(f"it has {len(text):,} characters, and {most:,} at most are read")
    depth = 0
    for event in yaml.parse(text, loader):
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise NotPlainError(f"{where} has an anchor or alias, & or *: write out what it stands for")
        if getattr(event, "tag", None) is not None:
            raise NotPlainError(f"{where} has a tag, !: leave it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise NotPlainError(f"{where} is nested deeper than {DEEPEST} levels")
    root = yaml.compose(text, loader)
    if root is None:
        return None
    _check_nodes(root)
    return loader("").construct_document(root)


def read_yaml(path: Path) -> tuple[str, Any]:
    """The text of a YAML file, and what it says.

    Raises:
        OSError, ValueError: as :func:`trevsnn.files.read_file`; or it is no UTF-8.
        yaml.YAMLError: as :func:`parse_yaml`.
    """
    text = read_file(path, 4 * MOST).decode("utf-8-sig")
    return text, parse_yaml(text)


def _check_nodes(node: yaml.Node) -> None:
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:int" and len(node.value) > _DIGITS:
        raise NotPlainError(f"line {node.start_mark.line + 1} has a number of more than {_DIGITS} digits")
    if isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            _check_nodes(inner)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise NotPlainError(f"{where} has a key that is no name")
            if key.value in seen:
                raise NotPlainError(f"{where} has {key.value!r} a second time: leave out one of the two")
            seen.add(key.value)
            _check_nodes(value)


@cache
def _loader(*, quick: bool) -> Any:
    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader) if quick else yaml.SafeLoader):  # type: ignore[misc]
        pass

    other = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp")
    kept = yaml.SafeLoader.yaml_implicit_resolvers.items()
    Loader.yaml_implicit_resolvers = {first: [rule for rule in rules if rule[0] not in other] for first, rules in kept}
    Loader.add_implicit_resolver(other[0], re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+0123456789."))
    Loader.add_implicit_resolver(other[1], re.compile(f"^(?:{_INT.pattern})$"), list("-+0123456789"))
    return Loader


set_loader(PLAIN, parse_yaml, (yaml.YAMLError,))
