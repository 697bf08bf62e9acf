"""The fingerprint that ties an exported form of a network to the weights it was made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from trevsnn.errors import RunError
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
    """Check that the file at ``path``, with this fingerprint in its metadata, was made from the model's weights.

    Raises:
        RunError: it has none, or that of other weights.
    """
    if fingerprint is None or json.loads(fingerprint)["sha256"] != json.loads(fingerprint_of(model))["sha256"]:
        raise RunError(f"{path} is of another model than the weights beside it: export the model again.")
