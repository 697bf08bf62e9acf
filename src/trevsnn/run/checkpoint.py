"""Checkpoints that survive a crash at any moment.

A checkpoint is a folder of safetensors and JSON files; nothing is ever unpickled. It is written under another name and
renamed when it is complete. ``manifest.json`` holds the SHA-256 of its other files, so that later damage is noticed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from trevsnn.errors import RunError
from trevsnn.files import LARGE, fresh_name, read_file, refuse_links, sync_folder, unwritable, write_through
from trevsnn.network.size import HEADER

MANIFEST, STATE = "manifest.json", "state.json"
WEIGHTS = ("model.safetensors", "ema.safetensors")
#: The files of a checkpoint, beside its manifest; no other is read.
FILES = (*WEIGHTS, "state.safetensors", STATE)
#: The names of a checkpoint after so many training steps, and of the weights of the best epoch.
STEP_NAME, BEST_NAME = "step-{:09d}", "best-{:06d}"
MOMENTS = 3  # numbers of an optimizer for each weight, at most, and one more
UNKNOWN = 2**31  # numbers of a network that is not known
Nested = Any  # dicts, lists, tuples, scalars, None and tensors


def save_checkpoint(folder: Path, weights: Mapping[str, Mapping[str, Tensor]], state: Nested) -> None:
    """Write a checkpoint folder.

    Args:
        folder: of the checkpoint; an earlier one of that name is replaced.
        weights: ``{"model": state_dict}``, and perhaps ``"ema"``; each becomes a safetensors file of that name.
        state: nested dicts and lists of scalars and tensors, for ``state.json`` and ``state.safetensors``.

    Raises:
        RunError: it cannot be written. Nothing of it is left then.
    """
    tensors: dict[str, Tensor] = {}
    plain = _pull_tensors(state, "", tensors)
    files = {f"{name}.safetensors": _serialise(part) for name, part in {**weights, "state": tensors}.items()}
    files[STATE] = json.dumps(plain).encode()
    files[MANIFEST] = json.dumps({n: hashlib.sha256(c).hexdigest() for n, c in files.items()}, indent=1).encode()
    beside = fresh_name(folder.parent)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        for name, content in files.items():
            write_through(beside / name, content)
        sync_folder(beside)
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise unwritable(folder, error) from error


def load_checkpoint(folder: Path, numbers: int = UNKNOWN) -> tuple[dict[str, dict[str, Tensor]], Nested]:
    """Read the ``weights`` and the ``state`` of :func:`save_checkpoint`.

    Args:
        folder: of the checkpoint.
        numbers: that the weights of its network have. Larger files than such a network's are not read.

    Raises:
        RunError: a file is missing or damaged, no regular file, too large, or named otherwise than those of a checkpoint.
    """
    try:
        refuse_links(folder)
        manifest = _manifest(folder)
        contents = {name: _read(folder / name, numbers, digest) for name, digest in manifest.items()}
        tensors = {Path(n).stem: load_tensors(c) for n, c in contents.items() if n.endswith(".safetensors")}
        state = _put_tensors(json.loads(contents[STATE]), tensors.pop("state"))
        if not isinstance(state, dict):
            raise ValueError(f"{STATE} holds no state")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SafetensorError, RecursionError) as error:
        raise RunError(f"the checkpoint {folder} is damaged ({error}): remove it, or use another.") from error
    return tensors, state


def read_entry(folder: Path, name: str) -> Nested:
    """One entry of the ``state`` of a checkpoint that holds no tensors, read without its weights; None where it cannot be read."""
    try:
        refuse_links(folder)
        state = json.loads(_read(folder / STATE, UNKNOWN, _manifest(folder)[STATE]))
        return _put_tensors(dict(state["__pairs__"])[name], {})
    except (RunError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = json.loads(read_file(folder / MANIFEST, 2**16))
    if not isinstance(manifest, dict) or not manifest.keys() <= set(FILES):
        raise ValueError(f"{MANIFEST} names other files than {', '.join(FILES)}")
    return manifest


def _read(path: Path, numbers: int, digest: object) -> bytes:
    most = LARGE if path.name == STATE else HEADER + 8 * numbers * (1 if path.name in WEIGHTS else MOMENTS + 1)
    try:
        content = read_file(path, most)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{path.name} is not what was written")
    return content


def checkpoints(folder: Path, prefix: str) -> list[Path]:
    """The complete checkpoints ``prefix-NUMBER`` in a folder, latest first. Raises RunError where one is a link."""
    named = re.compile(rf"{prefix}-([0-9]+)")
    found = {path: int(match[1]) for path in folder.glob(f"{prefix}-*") if (match := named.fullmatch(path.name))}
    refuse_links(*found)
    return sorted((path for path in found if path.is_dir()), key=found.__getitem__, reverse=True)


def remove_checkpoints(olds: Iterable[Path]) -> None:
    """Remove some of :func:`checkpoints`. Raises RunError where that fails."""
    for old in olds:
        try:
            shutil.rmtree(old)
        except OSError as error:
            raise unwritable(old, error) from error


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
