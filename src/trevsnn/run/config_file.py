"""The file of a config: YAML of names that there are, and no references to other files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trevsnn.errors import UsageError
from trevsnn.plain_yaml import read_yaml
from trevsnn.run.options import nearest, unknown_option

SECTIONS = ("model", "data", "optim")


def read_content(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a file that a user names, and what it says.

    Raises:
        UsageError: it cannot be read, is no YAML, or holds no options.
    """
    try:
        text, content = read_yaml(path.resolve())  # a link of the user's own is followed
    except RuntimeError as error:  # of Python up to 3.12, where links lead in a circle
        raise UsageError(f"--config {path} is a link that leads to itself: give a YAML file.") from error
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read ({error.strerror}): give a YAML file.") from error
    except (yaml.YAMLError, ValueError) as error:
        what = " ".join(str(error).split())
        raise UsageError(f"--config {path} is no YAML ({what}): mend it.") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config {path} holds no options: write NAME: VALUE, one a line.")
    return text, content


def checked_text(path: Path, known: Mapping[str, Any]) -> str:
    """The text of a file that a user names, whose names are those of options.

    Raises:
        UsageError: as :func:`read_content`, or a name is no option's.
    """
    text, content = read_content(path)
    try:
        check_names(content, known)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    return text


def check_names(content: Any, known: Mapping[str, Any]) -> None:
    """Check that all names of a config are those of options, and its sections no names of other files or of classes, which the
    parser would open or import.

    Args:
        content: of the file.
        known: the options by their dotted names.

    Raises:
        ValueError: one is not.
    """
    if not isinstance(content, dict):
        raise ValueError("it holds no options: write NAME: VALUE, one a line.")
    for name, value in content.items():
        if name not in SECTIONS:
            _check_name(str(name), known)
        elif not isinstance(value, dict):
            raise ValueError(f"{name} is {value!r}; it must hold options, NAME: VALUE.")
        else:
            for inner in value:
                _check_name(f"{name}.{inner}", known)


def _check_name(name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        raise ValueError(unknown_option(name, nearest(name, list(known)), dashes=""))
