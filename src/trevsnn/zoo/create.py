"""A network by its name."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.model import TRevSNN
from trevsnn.zoo.presets import PRESETS, pretrained_folder


def create_model(name: str, pretrained: bool = False, **overrides: Any) -> TRevSNN:
    """Build a preset: ``create_model("trevsnn_tiny", num_classes=10, backprop="reversible")``.

    Args:
        name: a key of ``PRESETS``.
        pretrained: load the trained weights that come with the package; the model is then in evaluation mode.
        overrides: fields of :class:`trevsnn.TRevSNNConfig`. Of a pretrained network ``num_classes``, with which its heads are
            new, to be trained, and ``in_chans``, to which its first convolution is adapted; others as the weights have them.

    Raises:
        ValueError: an unknown name or field, or a bad value; or there are no trained weights; or these were trained with
            another value.
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
