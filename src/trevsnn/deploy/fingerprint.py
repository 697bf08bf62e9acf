"""The mark that ties a form of a network to the weights it was made of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from trevsnn.errors import RunError
from trevsnn.network.model import TRevSNN

MARK = "trevsnn"  # the key it has in a file's metadata


def mark_of(model: TRevSNN) -> str:
    """Config and SHA-256 of the weights in float32, as JSON.

    Of the network, not of its folded form, whose last digits may differ between processors.
    """
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return json.dumps({"sha256": found.hexdigest(), "config": asdict(model.config)})


def check_mark(mark: str | None, model: TRevSNN, path: Path) -> None:
    """Refuse, with a RunError, a file whose mark is not the model's."""
    if mark is None or json.loads(mark)["sha256"] != json.loads(mark_of(model))["sha256"]:
        raise RunError(f"{path} is of another model than the weights beside it: export the model again.")
