"""What pictures a named network is given, as timm asks for it: size, mean, deviation, crop."""

from __future__ import annotations

from typing import Any, NamedTuple

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from trevsnn.network.backbone import data_config
from trevsnn.network.model import TRevSNN


class _Trained(NamedTuple):
    """What the weights of a preset were trained with. It stands here too, so that a new network is told the same where
    trevsnn-networks is not installed."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


_TRAINED = {
    "trevsnn_digits": _Trained(8, (0.30543369383138985,), (0.3759571681613025,)),
    "trevsnn_fashion_mnist": _Trained(28, (0.2858260569881734,), (0.3528793367250087,)),
    "trevsnn_cifar_10": _Trained(
        32, (0.49145407575909633, 0.482388915292356, 0.44688976587278),
        (0.24508270005957827, 0.24273598689520418, 0.26067803599147293),
    ),
    "trevsnn_tiny_imagenet": _Trained(64, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "trevsnn_n_mnist": _Trained(34, (0.0, 0.0), (1.0, 1.0)),
}  # fmt: skip

#: Side of a picture or frame, of networks that no weights come with.
_SIZES = {"trevsnn_event_tiny": 128}


def preset_data_config(name: str, model: TRevSNN) -> dict[str, Any]:
    """``pretrained_cfg`` of a preset: of those that weights come with, what these were trained with.

    Args:
        name: a key of ``PRESETS``.
        model: of it; where it has other channels than the preset, there is no mean and deviation to take.
    """
    trained = _TRAINED.get(name)
    if trained is None:
        return {"architecture": name, **data_config(model.config, model.heads, _SIZES.get(name))}
    known = {"architecture": name, **data_config(model.config, model.heads, trained.size), "crop_pct": 1.0}
    if len(trained.mean) == model.config.in_chans:
        known |= {"mean": trained.mean, "std": trained.std}
    return known
