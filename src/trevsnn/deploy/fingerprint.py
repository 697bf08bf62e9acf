"""The fingerprint that ties an exported form of a network to the weights it was made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trevsnn.errors import RunError
from trevsnn.network.config import CIRCUMSTANCES, TRevSNNConfig
from trevsnn.network.model import TRevSNN

FINGERPRINT = "trevsnn"  # its key in a file's metadata, as every version wrote it


def fingerprint_of(model: TRevSNN) -> str:
    """Config and SHA-256 of the weights in float32, as JSON.

    It is the network's, not its folded form's: the last digits of folded weights may differ between processors.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return json.dumps({"sha256": digest.hexdigest(), "config": asdict(model.config)})


def check_fingerprint(fingerprint: str | None, model: TRevSNN, path: Path) -> None:
    """Check that the file at ``path``, with this fingerprint in its metadata, was made from the model's weights, and from a
    network that computes the same with them.

    Raises:
        RunError: it has none, or that of other weights or of another such network.
    """
    if fingerprint is None or _compared(fingerprint) != _compared(fingerprint_of(model)):
        raise RunError(f"{path} is of another model than the weights and config beside it: export the model again.")


def _compared(fingerprint: str) -> tuple[str, dict[str, Any]]:
    """The hash, and what of the config results depend on. What an earlier version had no field for is the default."""
    content = json.loads(fingerprint)
    config = asdict(TRevSNNConfig()) | content["config"]
    return content["sha256"], {name: value for name, value in config.items() if name not in CIRCUMSTANCES}
