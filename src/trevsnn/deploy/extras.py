"""Libraries of optional extras."""

from __future__ import annotations

import importlib
from typing import Any

from trevsnn.errors import UsageError


def require(module: str, extra: str = "deploy") -> Any:
    """Import a library of an extra.

    Raises:
        UsageError: it is not installed; the message has the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} is not installed: pip install 'trevsnn[{extra}]'.") from error
