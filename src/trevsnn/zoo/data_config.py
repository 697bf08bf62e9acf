"""What pictures a named network is given, as timm asks for it: size, mean, deviation, crop."""

from __future__ import annotations

import json
from typing import Any

import yaml

from trevsnn.network.backbone import data_config
from trevsnn.network.model import TRevSNN
from trevsnn.zoo.presets import pretrained_folder

#: Side of a picture or frame, of networks that no weights come with.
_SIZES = {"trevsnn_event_tiny": 128}


def preset_data_config(name: str, model: TRevSNN) -> dict[str, Any]:
    """``pretrained_cfg`` of a preset: of those that weights come with, what these were trained with.

    Args:
        name: a key of ``PRESETS``.
        model: of it; where it has other channels than the preset, there is no mean and deviation to take.
    """
    folder = pretrained_folder(name.removeprefix("trevsnn_").replace("_", "-"))
    if folder is None:
        return {"architecture": name, **data_config(model.config, model.heads, _SIZES.get(name))}
    data = yaml.safe_load((folder / "config.yaml").read_text())["data"]
    about = json.loads((folder / "about.json").read_text())["about"]
    known = {"architecture": name, **data_config(model.config, model.heads, data["image_size"])}
    if about["channels"] == model.config.in_chans:
        known |= {"mean": tuple(about["mean"]), "std": tuple(about["std"])}
    return known | {"crop_pct": data.get("crop_share", 1.0)}
