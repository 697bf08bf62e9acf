"""Weights that a training begins from."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

from huggingface_hub import file_exists, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from trevsnn.errors import RunError, UsageError
from trevsnn.files import file_of, read_file, read_json
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.hub import check_finite
from trevsnn.network.model import TRevSNN
from trevsnn.network.packing import unpack
from trevsnn.network.transfer import refuse_other_networks, transfer
from trevsnn.run.about import read_classes
from trevsnn.run.folder import ABOUT
from trevsnn.run.load import load_run
from trevsnn.run.sources import HUB, folder_of, from_hub, repository_of
from trevsnn.zoo.published import from_published

LARGEST = 2**36  # bytes of a file of weights that a user names


class Trained(NamedTuple):
    """Weights to begin from, and what is known of them.

    Attributes:
        tensors: a state dict.
        config: of their network; None where a file was given.
        classes: names of their classes; None where they are not known.
    """

    tensors: dict[str, Tensor]
    config: TRevSNNConfig | None = None
    classes: tuple[str, ...] | None = None


def begin_from(source: str, model: TRevSNN, classes: tuple[str, ...]) -> str:
    """Give a new network trained weights, in place.

    Heads are taken over where the classes are the same, by their names in their order; where the names are not known, heads are
    new. The first convolution is adapted to other input channels (:mod:`trevsnn.network.transfer`).

    Args:
        source: folder of a run, of an export or of ``save_pretrained``; name of a network that comes trained; safetensors file,
            with the names of this package or of the published code; or ``hub:OWNER/NAME``.
        model: the new network.
        classes: names of its classes.

    Returns:
        What was taken, in a sentence.

    Raises:
        UsageError: there is no such source, or the weights are of another network.
        RunError: a file is missing or damaged, or a weight is not finite.
    """
    trained = load_trained(source)
    if trained.config is not None:
        try:
            refuse_other_networks(trained.config, model.config)
        except ValueError as error:
            raise UsageError(f"init {source}: {error}") from error
    tensors, new_heads, adapted = transfer(trained.tensors, model, same_classes=trained.classes == classes)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        first = shorten(str(error).splitlines()[1].strip(), 200, placeholder=" ...")
        raise UsageError(
            f"init {source}: the weights are of another network than model.* describes: {first}"
        ) from error
    check_finite(model, Path(source))
    unnamed = "" if trained.classes else ", as nothing names the classes that it was trained on"
    heads = (
        f"the heads are new, for {len(classes)} classes{unnamed}"
        if new_heads
        else "with its heads, as the classes are the same"
    )
    channels = f"; the first convolution is adapted to {model.config.in_chans} channels" if adapted else ""
    return f"begins with the weights of {source}; {heads}{channels}"


def load_trained(source: str) -> Trained:
    """The weights of a source of :func:`begin_from`. Raises as it does."""
    if source.startswith(HUB):
        repository = repository_of(source)
        model = from_hub(repository, TRevSNN.from_pretrained)
        about = None
        if from_hub(repository, lambda name: file_exists(name, ABOUT)):
            about = Path(from_hub(repository, lambda name: hf_hub_download(name, ABOUT)))
        return Trained(model.state_dict(), model.config, _classes(about))
    folder = folder_of(source)
    if folder is None:
        return _of_file(Path(source))
    if not (folder / "config.yaml").is_file():
        model = TRevSNN.from_pretrained(folder)
        return Trained(model.state_dict(), model.config, _classes(folder / ABOUT))
    model, config, about, _ = load_run(folder, "last")
    return Trained(model.state_dict(), config.model, about.classes)


def _of_file(path: Path) -> Trained:
    try:
        tensors = unpack(load(read_file(path.resolve(), LARGEST)))  # a link of the user's own is followed
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path} is damaged, or no safetensors file ({error}): give other weights with init.") from error
    if not any(name.startswith("subnet0.") for name in tensors):
        return Trained(tensors, None, _classes(path.with_name(ABOUT)))
    try:
        published = from_published(tensors, input="image" if "stem.down1.0.weight" in tensors else "event")
    except ValueError as error:
        raise RunError(f"{path}: {error}") from error
    return Trained(published.state_dict(), published.config)


def _classes(about: Path | None) -> tuple[str, ...] | None:
    if about is None or not about.is_file():
        return None
    try:
        return read_classes(read_json(file_of(about.parent, about.name))["about"]["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{about} is damaged ({error}): export the model again.") from error
