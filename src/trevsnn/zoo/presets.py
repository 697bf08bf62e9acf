"""Named models, for :func:`create_model` and ``timm.create_model``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from timm.models import register_model

from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.model import TRevSNN

__all__ = [
    "PRESETS", "create_model", "pretrained_folder", "trevsnn_digits", "trevsnn_event_tiny", "trevsnn_fashion_mnist",
    "trevsnn_n_mnist", "trevsnn_nano", "trevsnn_small", "trevsnn_tiny",
]  # fmt: skip

#: tiny, small and event_tiny are those of the paper; nano is for pictures of 8 to 64 pixels on small machines; the others
#: are those of the recipes of their names, and come with trained weights.
PRESETS: dict[str, dict[str, Any]] = {
    "trevsnn_tiny": {"channels": (64, 128, 256, 384), "timesteps": 4, "kernel_size": 3},
    "trevsnn_small": {"channels": (96, 192, 384, 512), "timesteps": 4, "kernel_size": 5},
    "trevsnn_event_tiny": {
        "channels": (32, 64, 128, 256), "timesteps": 8, "kernel_size": 3, "input": "event", "num_classes": 11,
    },
    "trevsnn_nano": {
        "channels": (32, 64, 96, 128), "timesteps": 4, "kernel_size": 3, "encoder_stride": 1, "num_classes": 10,
    },
    "trevsnn_digits": {
        "channels": (24, 64, 96), "timesteps": 2, "in_chans": 1, "encoder_stride": 1, "num_classes": 10,
    },
    "trevsnn_fashion_mnist": {
        "channels": (32, 64, 128, 128), "timesteps": 1, "in_chans": 1, "encoder_stride": 1, "num_classes": 10,
    },
    "trevsnn_n_mnist": {
        "channels": (32, 64, 96), "timesteps": 4, "input": "event", "encoder_stride": 2, "num_classes": 10,
    },
}  # fmt: skip


#: Folders as trevsnn export makes them, by the name they are asked for.
_PRETRAINED = Path(__file__).parents[1] / "pretrained"


def pretrained_folder(name: str) -> Path | None:
    """The folder of trained weights that come with the package, by the recipe's name ("digits"); None for other names."""
    folder = _PRETRAINED / name
    return folder if folder.parent == _PRETRAINED and (folder / "config.json").is_file() else None


def create_model(name: str, pretrained: bool = False, **overrides: Any) -> TRevSNN:
    """Build a preset: ``create_model("trevsnn_tiny", num_classes=10, backprop="reversible")``.

    Args:
        name: a key of ``PRESETS``.
        pretrained: load the trained weights that come with the package; the model is then in evaluation mode.
        overrides: fields of :class:`trevsnn.TRevSNNConfig`.

    Raises:
        ValueError: an unknown name or field, or a bad value; or there are no trained weights.
        RunError: the weights do not fit the overrides.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no model {name!r}; there are {', '.join(PRESETS)}.")
    known = [field.name for field in fields(TRevSNNConfig)]
    if unknown := [key for key in overrides if key not in known]:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known)}.")
    if pretrained:
        folder = pretrained_folder(name.removeprefix("trevsnn_").replace("_", "-"))
        if folder is None:
            raise ValueError(f"there are no pretrained weights for {name}: create it with pretrained=False.")
        return TRevSNN.from_pretrained(folder, **overrides)
    return TRevSNN(TRevSNNConfig(**{**PRESETS[name], **overrides}))


def _for_timm(name: str, pretrained: bool, options: dict[str, Any]) -> TRevSNN:
    # timm hands every model the place of its pretrained weights; there are none to fetch.
    dropped = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
    return create_model(name, pretrained, **{key: value for key, value in options.items() if key not in dropped})


@register_model
def trevsnn_tiny(pretrained: bool = False, **options: Any) -> TRevSNN:
    """T-RevSNN tiny, 17.2 M parameters in training at 1000 classes."""
    return _for_timm("trevsnn_tiny", pretrained, options)


@register_model
def trevsnn_small(pretrained: bool = False, **options: Any) -> TRevSNN:
    """T-RevSNN small, 32.3 M parameters in training at 1000 classes."""
    return _for_timm("trevsnn_small", pretrained, options)


@register_model
def trevsnn_event_tiny(pretrained: bool = False, **options: Any) -> TRevSNN:
    """T-RevSNN for event cameras, 10.2 M parameters at 11 classes."""
    return _for_timm("trevsnn_event_tiny", pretrained, options)


@register_model
def trevsnn_nano(pretrained: bool = False, **options: Any) -> TRevSNN:
    """A small T-RevSNN for pictures of 8 to 64 pixels."""
    return _for_timm("trevsnn_nano", pretrained, options)


@register_model
def trevsnn_digits(pretrained: bool = False, **options: Any) -> TRevSNN:
    """The network of the digits recipe, for 8 x 8 pictures, with trained weights."""
    return _for_timm("trevsnn_digits", pretrained, options)


@register_model
def trevsnn_fashion_mnist(pretrained: bool = False, **options: Any) -> TRevSNN:
    """The network of the fashion-mnist recipe, for 28 x 28 pictures, with trained weights."""
    return _for_timm("trevsnn_fashion_mnist", pretrained, options)


@register_model
def trevsnn_n_mnist(pretrained: bool = False, **options: Any) -> TRevSNN:
    """The network of the n-mnist recipe, for event frames of 34 x 34 pixels, with trained weights."""
    return _for_timm("trevsnn_n_mnist", pretrained, options)
