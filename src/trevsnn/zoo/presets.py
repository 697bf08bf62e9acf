"""The named networks, as plain data, and where their trained weights lie."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trevsnn.errors import UsageError

#: tiny, small and event_tiny are those of the paper; nano is for pictures of 8 to 64 pixels on small machines; the others
#: are those of the recipes of their names, and come with trained weights, some of them in trevsnn-networks. event_tiny has the
#: published readout, "last", of which a new network's head sees nothing at T = 8: train it with readout="mean".
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
_OWN = Path(__file__).parents[1] / "pretrained"

#: Those of the distribution trevsnn-networks, which is larger than this one.
APART = ("cifar-10", "fashion-mnist", "tiny-imagenet")


def network_folder(path: Path) -> Path:
    """What lies at ``path``, or, where nothing does, the folder of the network that comes trained by this name.

    Raises:
        UsageError: as :func:`pretrained_folder`.
    """
    return path if path.exists() else pretrained_folder(str(path)) or path


def pretrained_folder(name: str) -> Path | None:
    """The folder of trained weights that come with the package or with ``trevsnn-networks``, by the recipe's name ("digits").

    Returns:
        None for other names.

    Raises:
        UsageError: they come with ``trevsnn-networks``, which is not installed.
    """
    home = _networks(name) if name in APART else _OWN
    folder = home / name
    return folder if folder.parent == home and (folder / "config.json").is_file() else None


def _networks(name: str) -> Path:
    try:
        place = Path(str(files("trevsnn_networks")))
    except ModuleNotFoundError:
        place = None
    if place is None or not (place / name).is_dir():  # a folder of that name is no package of ours
        raise UsageError(
            f"the trained network {name} is not installed: pip install trevsnn-networks, or in a clone of the repository "
            "pip install ./networks."
        )
    return place
