"""Weights and config in the layout of the Hugging Face Hub: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from trevsnn.errors import RunError
from trevsnn.files import write_file
from trevsnn.network.encoders import AnnealedLeakyReLU

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class HubModel(
    ModelHubMixin,
    library_name="trevsnn",
    license="apache-2.0",
    pipeline_tag="image-classification",
    tags=["spiking-neural-network", "trevsnn"],
):
    """``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` of :class:`huggingface_hub.ModelHubMixin`.

    Weights are safetensors only: nothing is unpickled. A subclass names its config's class.
    """

    config_type: Any

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Any:
        """A model from a folder, or from a repository of the Hub; ``options`` of
        :meth:`huggingface_hub.ModelHubMixin.from_pretrained`, and changes of the config.

        Raises:
            RunError: a folder that lacks a file, or a damaged one.
        """
        folder = Path(pretrained_model_name_or_path)
        if folder.is_dir() and not (folder / CONFIG).is_file():
            raise RunError(f"{folder} holds no {CONFIG}: give a folder that save_pretrained or trevsnn export made.")
        return super().from_pretrained(pretrained_model_name_or_path, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        assert isinstance(self, nn.Module)
        slopes = [module.slope for module in self.modules() if isinstance(module, AnnealedLeakyReLU)]
        config = {**asdict(self.config), "slope": slopes[0] if slopes else 1.0}  # type: ignore[call-overload]
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        write_file(save_directory / WEIGHTS, save(weights, metadata={"format": "pt"}))
        write_file(save_directory / CONFIG, json.dumps(config, indent=2).encode())

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, cache_dir: str | Path | None, force_download: bool,
        local_files_only: bool, token: str | bool | None, config: dict[str, Any] | None = None, **changes: Any,
    ) -> Any:  # fmt: skip
        if config is None:
            raise RunError(f"the repository {model_id} holds no {CONFIG}: it is none of a trevsnn model.")
        if Path(model_id).is_dir():
            file = Path(model_id) / WEIGHTS
        else:
            file = Path(
                hf_hub_download(
                    model_id,
                    WEIGHTS,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    token=token,
                    local_files_only=local_files_only,
                )
            )
        return load_pretrained(cls, file, config | changes)


def load_pretrained(kind: Any, file: Path, config: dict[str, Any]) -> Any:
    """A model of class ``kind`` from its weights and the content of its config.json.

    Raises:
        RunError: the file is missing or damaged, or belongs to another config.
    """
    own = {field.name for field in fields(kind.config_type)} | {"slope"}
    if unknown := sorted(set(config) - own):
        raise RunError(f"{file.parent / CONFIG} is of another kind of model: it has {', '.join(unknown)}.")
    slope = config.pop("slope", 1.0)
    try:
        model = kind(kind.config_type(**config))
        model.load_state_dict(load_file(file))
    except (TypeError, ValueError) as error:
        raise RunError(f"{file.parent / CONFIG} is damaged ({error}): export the model again.") from error
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file} is missing or damaged ({error}): export the model again.") from error
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise RunError(f"{file} holds the weights of another model than {CONFIG} describes: {first}") from error
    model.set_slope(slope)
    return model.eval()
