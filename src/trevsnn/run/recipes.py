"""The shipped recipes, as YAML files that may have a base."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from trevsnn.errors import UsageError

RECIPES = resources.files("trevsnn") / "recipes"
DEFAULT_RECIPE = "digits"


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    names = (Path(item.name) for item in RECIPES.iterdir())
    return sorted(name.stem for name in names if name.suffix == ".yaml" and not name.stem.startswith("_"))


def recipe_yaml(name: str) -> str:
    """A shipped recipe, as YAML that ``--config`` reads.

    In a recipe's file the key ``base`` names another recipe, whose values hold where it says nothing. Recipes whose name
    begins with ``_`` are bases only.

    Raises:
        UsageError: an unknown name.
    """
    if name not in recipe_names():
        near = get_close_matches(name, recipe_names(), 1)
        meant = f": did you mean {near[0]}?" if near else "."
        raise UsageError(f"there is no recipe {name!r}; there are {', '.join(recipe_names())}{meant}")
    return yaml.safe_dump(read_recipe(name), sort_keys=False)


def read_recipe(name: str) -> dict[str, Any]:
    """The values of a recipe, or of one that is a base only, over those of its own base."""
    own = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    base = own.pop("base", None)
    if base is None:
        return own
    merged = read_recipe(base)
    for key, value in own.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    return merged
