"""Libraries of the optional extra ``events``."""

from __future__ import annotations

import importlib
from typing import Any

from trevsnn.errors import UsageError


def need(module: str) -> Any:
    """A module of such a library.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise UsageError(f"reading these recordings needs {name}: pip install 'trevsnn[events]'.") from error
