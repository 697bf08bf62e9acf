"""The fingerprint that ties an exported form of a network to the weights it was made from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trevsnn.errors import RunError
from trevsnn.network.config import CIRCUMSTANCES, TRevSNNConfig
from trevsnn.network.hub import weights_sha256
from trevsnn.network.model import TRevSNN

FINGERPRINT = "trevsnn"  # its key in a file's metadata, as every version wrote it


def fingerprint_of(model: TRevSNN) -> str:
    """Config and SHA-256 of the weights in float32, as JSON.

    It is the network's, not its folded form's: the last digits of folded weights may differ between processors.
    """
    return json.dumps({"sha256": weights_sha256(model), "config": asdict(model.config)})


def check_fingerprint(fingerprint: str | None, model: TRevSNN, path: Path) -> None:
    """Check that the file at ``path``, with this fingerprint in its metadata, was made from the model's weights, and from a
    network that computes the same with them.

    Raises:
        RunError: it has none, or that of other weights or of another such network.
    """
    try:
        same = fingerprint is not None and _compared(fingerprint) == _compared(fingerprint_of(model))
    except (ValueError, KeyError, TypeError, RecursionError):  # no text of ours
        same = False
    if not same:
        raise RunError(f"{path} is of another model than the weights and config beside it: export the model again.")


def _compared(fingerprint: str) -> tuple[str, dict[str, Any]]:
    """The hash, and what of the config results depend on. What an earlier version had no field for is the default."""
    content = json.loads(fingerprint)
    config = asdict(TRevSNNConfig()) | content["config"]
    return content["sha256"], {name: value for name, value in config.items() if name not in CIRCUMSTANCES}
