"""Libraries of the optional extra ``deploy``."""

from __future__ import annotations

import importlib
from typing import Any

from trevsnn.errors import UsageError


def require(module: str) -> Any:
    """Import a library of the extra ``deploy``.

    Raises:
        UsageError: it is not installed; the message has the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{module} is not installed: pip install 'trevsnn[deploy]'.") from error
