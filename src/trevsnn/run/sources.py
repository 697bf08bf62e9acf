"""Where weights to begin from lie, and what is known of them before PyTorch is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from trevsnn.errors import UsageError
from trevsnn.files import file_of, read_json
from trevsnn.run.config import to_dict
from trevsnn.run.folder import RunFolder
from trevsnn.run.options import flatten
from trevsnn.zoo.presets import network_folder

HUB = "hub:"
NETWORK = "config.json"  # of a folder that save_pretrained made, and of a repository of the Hub
Value = TypeVar("Value")


def repository_of(source: str) -> str:
    """OWNER/NAME of ``hub:OWNER/NAME``. Raises UsageError where it is of another form."""
    repository = source.removeprefix(HUB)
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise UsageError(f"init is {source!r}; a repository of the Hub is given as {HUB}OWNER/NAME.")
    return repository


def from_hub(repository: str, fetch: Callable[[str], Value]) -> Value:
    """``fetch(repository)``. Raises UsageError, one sentence, for whatever the Hub, its client or the network have against it."""
    try:
        return fetch(repository)
    except Exception as error:  # of the client, of its transport and of its cache: they have no class in common
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UsageError(f"{HUB}{repository} cannot be had ({first}): check its name and the connection.") from error


def folder_of(source: str) -> Path | None:
    """The folder that a source on this machine names, or that comes with the package; None for a file.

    Raises:
        UsageError: there is no such source.
    """
    path = Path(source)
    if path.is_file():
        return None
    folder = network_folder(path)
    if not folder.is_dir():
        raise UsageError(
            f"init is {source!r}, which is none of: the folder of a run, of an export or of save_pretrained; the name of a "
            f"network that comes trained; a .safetensors file; {HUB}OWNER/NAME."
        )
    return folder


def options_of(source: str) -> dict[str, Any]:
    """The options that weights to begin from bring to a run: ``model``, and, where it is known, ``data.image_size``.

    Args:
        source: as of :func:`trevsnn.run.initial.begin_from`.

    Returns:
        As of a YAML file; of a file of weights what the config.json beside it says, or nothing.

    Raises:
        UsageError: there is no such source.
        RunError: its config is damaged.
    """
    if source.startswith(HUB):
        from huggingface_hub import hf_hub_download

        file = Path(from_hub(repository_of(source), lambda name: hf_hub_download(name, NETWORK)))
        return {"model": _network(file.parent)}
    folder = folder_of(source)
    if folder is None:
        beside = Path(source).parent
        return {"model": _network(beside)} if (beside / NETWORK).is_file() else {}
    if not (folder / "config.yaml").is_file() and (folder / NETWORK).is_file():
        return {"model": _network(folder)}
    plain = to_dict(RunFolder.open(folder).read_config())
    return {"model": plain["model"], "data": {"image_size": plain["data"]["image_size"]}}


def brought_by(options: Mapping[str, Any], *, own_pictures: bool) -> dict[str, Any]:
    """What weights to begin from bring to a run, where neither a config nor a recipe says what its network is.

    Args:
        options: that were given, by dotted names.
        own_pictures: whether classes and channels are those of a folder of one's own, whatever the weights had.

    Returns:
        Options by dotted names, under those that were given.

    Raises:
        UsageError, RunError: as :func:`options_of`.
    """
    source = options.get("init")
    if source is None or options.get("config") is not None:
        return {}
    of_the_data = ("model.num_classes", "model.in_chans") if own_pictures else ()
    return {name: value for name, value in flatten(options_of(source)).items() if name not in of_the_data}


def _network(folder: Path) -> dict[str, Any]:
    try:
        plain = read_json(file_of(folder, NETWORK))
        return {name: value for name, value in plain.items() if name != "slope"}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{folder / NETWORK} is damaged ({error}): give other weights with init.") from error
