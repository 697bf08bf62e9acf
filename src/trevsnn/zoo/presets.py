"""The named networks, as plain data, and where their trained weights lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
        "channels": (24, 64, 128, 96), "timesteps": 2, "in_chans": 1, "encoding": "grouped", "encoder_stride": 1,
        "num_classes": 10,
    },
    "trevsnn_cifar_10": {
        "channels": (16, 64, 112, 64), "timesteps": 4, "encoding": "grouped", "encoder_stride": 1, "num_classes": 10,
    },
    "trevsnn_tiny_imagenet": {
        "channels": (16, 64, 112, 80), "timesteps": 4, "encoding": "grouped", "encoder_stride": 2, "num_classes": 20,
    },
    "trevsnn_n_mnist": {
        "channels": (32, 64, 96), "timesteps": 4, "input": "event", "encoder_stride": 2, "readout": "mean", "num_classes": 10,
    },
}  # fmt: skip

if TYPE_CHECKING:
    Preset = str
else:
    Preset = Literal[tuple(PRESETS)]  # one list of the names, for the command line too

#: Folders as trevsnn export makes them, by the name they are asked for.
_PRETRAINED = Path(__file__).parents[1] / "pretrained"


def pretrained_folder(name: str) -> Path | None:
    """The folder of trained weights that come with the package, by the recipe's name ("digits"); None for other names."""
    folder = _PRETRAINED / name
    return folder if folder.parent == _PRETRAINED and (folder / "config.json").is_file() else None
