"""Libraries that only deployment needs."""

from __future__ import annotations

import importlib
from typing import Any

from trevsnn.errors import UsageError


def require(module: str) -> Any:
    """Import an optional library. Raises UsageError with the line that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} is not installed: pip install 'trevsnn[deploy]'.") from error
