"""Weights and config in the Hugging Face Hub's layout: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from trevsnn.errors import RunError
from trevsnn.files import file_of, read_file, read_json, write_file
from trevsnn.network.config import CIRCUMSTANCES
from trevsnn.network.encoders import AnnealedLeakyReLU
from trevsnn.network.packing import unpack
from trevsnn.network.size import HEADER, check_weights_size, numbers_of
from trevsnn.network.transfer import TRANSFERABLE, transfer

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class HubModel(
    ModelHubMixin,
    library_name="trevsnn",
    pipeline_tag="image-classification",
    tags=["spiking-neural-network", "trevsnn"],
):
    """``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` of :class:`huggingface_hub.ModelHubMixin`.

    The mixin reads config.json, writes the model card, and talks to the Hub. Reading and writing the weights is ours,
    since its PyTorch variant unpickles weights where a repository has no safetensors, writes files in place, and has
    no room for the slope of the leaky ReLUs, which config.json holds too.

    Attributes:
        config_type: the config's class, which a subclass names.
    """

    config_type: Any

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Any:
        """A model in evaluation mode from a folder, or from a repository of the Hub.

        Args:
            pretrained_model_name_or_path: the folder, or the repository's name.
            options: of :meth:`huggingface_hub.ModelHubMixin.from_pretrained`; fields of the config that say how a network is
                computed, such as ``backprop``; ``num_classes``, with which the heads are new, and ``in_chans``, to which the first
                convolution is adapted (:mod:`trevsnn.network.transfer`).

        Raises:
            ValueError: another field of the config is to differ from what the weights were trained with.
            RunError: config.json or model.safetensors is missing, damaged, or of another kind of model, or a weight is
                not finite.
        """
        folder = Path(pretrained_model_name_or_path)
        if folder.exists() and not (folder / CONFIG).is_file():
            wrong = f"holds no {CONFIG}" if folder.is_dir() else "is a file"
            raise RunError(
                f"{folder} {wrong}: give a folder that save_pretrained or trevsnn export made (of a run, by trevsnn export RUN)."
            )
        if folder.is_dir():
            try:
                if not isinstance(read_json(file_of(folder, CONFIG)), dict):
                    raise ValueError("it is no object")
            except (OSError, ValueError) as error:
                raise RunError(f"{folder / CONFIG} is damaged ({error}): export the model again.") from error
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **options)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunError(f"{CONFIG} of {folder} is damaged ({error}): it is not of a trevsnn model.") from error

    def save_pretrained(
        self, save_directory: str | Path, *, repo_id: str | None = None, push_to_hub: bool = False, **options: Any
    ) -> str | None:
        """Write config.json, model.safetensors and, where there is none, a model card to a folder.

        What lies there stays as it is until its successor is complete, and links are replaced, not written through.

        Args:
            save_directory: the folder, which is made.
            repo_id: repository of the Hub; by default that of the folder's name.
            push_to_hub: upload as well.
            options: of :meth:`huggingface_hub.ModelHubMixin.push_to_hub`.

        Returns:
            The address of the upload, if there is one.

        Raises:
            RunError: a file cannot be written.
        """
        folder = Path(save_directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"the folder {folder} cannot be made ({error.strerror}): give another.") from error
        self._save_pretrained(folder)
        card = folder / "README.md"
        if not card.is_file() or card.is_symlink():
            write_file(card, str(self.generate_model_card(**options.get("model_card_kwargs", {}))).encode())
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_network(self, self.state_dict(), save_directory)  # type: ignore[attr-defined]

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, cache_dir: str | Path | None, force_download: bool,
        local_files_only: bool, token: str | bool | None, config: dict[str, Any] | None = None, **changes: Any,
    ) -> Any:  # fmt: skip
        if config is None:
            raise RunError(f"the repository {model_id} holds no {CONFIG}: it is not of a trevsnn model.")
        if Path(model_id).is_dir():
            file = file_of(Path(model_id), WEIGHTS)
        else:
            downloaded = hf_hub_download(
                model_id, WEIGHTS, revision=revision, cache_dir=cache_dir, force_download=force_download, token=token,
                local_files_only=local_files_only,
            )  # fmt: skip
            file = Path(downloaded).resolve()  # the Hub's cache is made of links
        return load_pretrained(cls, file, config, changes)


def save_network(model: Any, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write a :class:`HubModel` as config.json and model.safetensors.

    Args:
        model: whose config is written.
        tensors: its state dict, packed or not (:mod:`trevsnn.network.packing`).
        folder: that exists.

    Raises:
        RunError: a file cannot be written.
    """
    slopes = [module.slope for module in model.modules() if isinstance(module, AnnealedLeakyReLU)]
    config = {**asdict(model.config), "slope": slopes[0] if slopes else 1.0}
    save_tensors(tensors, folder / WEIGHTS, {"format": "pt"})
    write_file(folder / CONFIG, json.dumps(config, indent=2).encode())


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Write tensors as safetensors. Raises RunError where the file cannot be written."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_file(file, save(contiguous, metadata=metadata))


def load_pretrained(kind: Any, file: Path, config: dict[str, Any], changes: Mapping[str, Any]) -> Any:
    """A model in evaluation mode.

    Args:
        kind: its class, a :class:`HubModel`.
        file: its weights, safetensors, packed or not.
        config: the content of config.json.
        changes: of it, of ``CIRCUMSTANCES`` and ``TRANSFERABLE``; other fields may be named with the value that they have.

    Raises:
        ValueError: a change is of another field, or of a bad value.
        RunError: the file is missing or damaged, config and weights do not belong together, or a weight is not finite.
    """
    known = {field.name for field in fields(kind.config_type)} | {"slope"}
    if unknown := sorted(set(config) - known):
        raise RunError(f"{file.parent / CONFIG} is of another kind of model: it has {', '.join(unknown)}.")
    slope = config.get("slope", 1.0)
    try:
        if isinstance(slope, bool) or not 0 <= slope <= 1:
            raise ValueError(f"slope is {slope}")
        trained = kind.config_type(**{name: value for name, value in config.items() if name != "slope"})
    except (TypeError, ValueError) as error:
        raise RunError(f"{file.parent / CONFIG} is damaged ({error}): export the model again.") from error
    for name, value in changes.items():
        has = getattr(trained, name, None)
        if name not in (*CIRCUMSTANCES, *TRANSFERABLE) and (tuple(value) if isinstance(value, list) else value) != has:
            raise ValueError(f"{name} is {value!r}, but {file} was trained with {has!r}: leave it out.")
    changed = replace(trained, **changes)
    try:
        numbers = numbers_of(lambda: kind(trained))
        check_weights_size(file, numbers)
        tensors = unpack(load(read_file(file, 8 * numbers + HEADER)))
        model = kind(changed)
        if any(getattr(model.config, name) != getattr(trained, name) for name in TRANSFERABLE):
            tensors = transfer(tensors, model, same_classes=model.config.num_classes == trained.num_classes).tensors
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{file} is missing or damaged ({error}): export the model again.") from error
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise RunError(f"{file} holds the weights of another model than {CONFIG} describes: {first}") from error
    check_finite(model, file)
    model.set_slope(slope)
    return model.eval()


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 of the names and, in float32, the numbers of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_finite(model: nn.Module, file: Path) -> None:
    """Refuse weights by which a network would compute nothing sensible, though perhaps a class with a probability.

    Args:
        model: whose parameters and buffers are looked at.
        file: where they are from, for the message.

    Raises:
        RunError: one is NaN or infinite.
    """
    faulty = [name for name, tensor in model.state_dict().items() if not bool(tensor.isfinite().all())]
    if faulty:
        others = f"and {len(faulty) - 1} more weights hold" if len(faulty) > 1 else "holds"
        raise RunError(
            f"{faulty[0]} {others} NaN or infinite numbers in {file}: use an earlier checkpoint, or train again with a "
            "lower optim.lr."
        )
