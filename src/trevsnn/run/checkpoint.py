"""Checkpoints that survive a crash at any moment.

A checkpoint is a folder of safetensors and JSON files; nothing is ever unpickled. It is written under another name and
renamed when it is complete. ``manifest.json`` holds the SHA-256 of its other files, so that later damage is noticed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from trevsnn.errors import RunError
from trevsnn.files import sync_folder, unwritable, write_through

MANIFEST = "manifest.json"
Nested = Any  # dicts, lists, tuples, scalars, None and tensors


def save_checkpoint(folder: Path, weights: Mapping[str, Mapping[str, Tensor]], state: Nested) -> None:
    """Write a checkpoint folder.

    Args:
        folder: of the checkpoint; an earlier one of that name is replaced.
        weights: ``{"model": state_dict}`` and the like; each becomes a safetensors file of that name.
        state: nested dicts and lists of scalars and tensors, for ``state.json`` and ``state.safetensors``.

    Raises:
        RunError: it cannot be written. Nothing of it is left then.
    """
    tensors: dict[str, Tensor] = {}
    plain = _pull_tensors(state, "", tensors)
    files = {f"{name}.safetensors": _serialise(part) for name, part in {**weights, "state": tensors}.items()}
    files["state.json"] = json.dumps(plain).encode()
    files[MANIFEST] = json.dumps({n: hashlib.sha256(c).hexdigest() for n, c in files.items()}, indent=1).encode()
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        for name, content in files.items():
            write_through(beside / name, content)
        sync_folder(beside)
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise unwritable(folder, error) from error


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], Nested]:
    """Read the ``weights`` and the ``state`` of :func:`save_checkpoint`.

    Raises:
        RunError: a file is missing or damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        contents = {name: (folder / name).read_bytes() for name in manifest}
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != manifest[name]:
                raise ValueError(f"{name} is not what was written")
        tensors = {Path(n).stem: load_tensors(c) for n, c in contents.items() if n.endswith(".safetensors")}
        state = _put_tensors(json.loads(contents["state.json"]), tensors.pop("state"))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SafetensorError) as error:
        raise RunError(f"the checkpoint {folder} is damaged ({error}): remove it, or use another.") from error
    return tensors, state


def checkpoints(folder: Path, prefix: str) -> list[Path]:
    """The complete checkpoints ``prefix-NUMBER`` in a folder, latest first."""
    return sorted((p for p in folder.glob(f"{prefix}-*") if p.is_dir()), reverse=True)


def remove_checkpoints(folder: Path, prefix: str, keep: int) -> None:
    """Remove all but the latest ``keep`` checkpoints, and what was left of those that were never completed."""
    for old in [*checkpoints(folder, prefix)[keep:], *folder.glob(f".{prefix}-*.part")]:
        shutil.rmtree(old)


def _serialise(tensors: Mapping[str, Tensor]) -> bytes:
    return save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _pull_tensors(value: Nested, path: str, tensors: dict[str, Tensor]) -> Nested:
    """Move tensors into ``tensors``, leaving ``{"__tensor__": path}``; dicts become pairs, since JSON has no integer keys."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"__tensor__": path}
    if isinstance(value, Mapping):
        return {"__pairs__": [[key, _pull_tensors(v, f"{path}/{key}", tensors)] for key, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_pull_tensors(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
    return value


def _put_tensors(value: Nested, tensors: Mapping[str, Tensor]) -> Nested:
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensors[value["__tensor__"]]
        return {key: _put_tensors(v, tensors) for key, v in value["__pairs__"]}
    if isinstance(value, list):
        return [_put_tensors(v, tensors) for v in value]
    return value
