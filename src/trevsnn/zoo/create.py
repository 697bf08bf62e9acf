"""A network by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, overload

from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.features import FeatureNet, Output
from trevsnn.network.model import TRevSNN
from trevsnn.zoo.data_config import preset_data_config
from trevsnn.zoo.presets import PRESETS, pretrained_folder


@overload
def create_model(
    name: str, pretrained: bool = False, *, features_only: Literal[False] = False, **overrides: Any
) -> TRevSNN: ...


@overload
def create_model(
    name: str, pretrained: bool = False, *, features_only: Literal[True],
    out_indices: int | Sequence[int] | None = None, output: Output = "states", **overrides: Any,
) -> FeatureNet: ...  # fmt: skip


def create_model(
    name: str, pretrained: bool = False, *, features_only: bool = False,
    out_indices: int | Sequence[int] | None = None, output: Output | None = None, **overrides: Any,
) -> TRevSNN | FeatureNet:  # fmt: skip
    """Build a preset: ``create_model("trevsnn_tiny", num_classes=10, backprop="reversible")``.

    Args:
        name: a key of :data:`trevsnn.zoo.PRESETS`.
        pretrained: load the trained weights that come with the package or trevsnn-networks. As a new network, and as timm's, it is in training mode.
        features_only: build the network that gives the maps of ``out_indices``, states or spikes by ``output``; see
            :class:`trevsnn.FeatureNet`.
        out_indices: levels whose maps are given, lowest first, with ``features_only``; None for all.
        output: "states" (the default) or "spikes", with ``features_only``.
        overrides: fields of :class:`trevsnn.TRevSNNConfig`. Of a pretrained network ``num_classes``, with which its heads are
            new, to be trained, and ``in_chans``, to which its first convolution is adapted; others as the weights have them.

    Returns:
        In training mode a :class:`trevsnn.TRevSNN`, or with ``features_only`` a :class:`trevsnn.FeatureNet`.

    Raises:
        ValueError: an unknown name or field, or a bad value; or there are no trained weights; or these were trained with
            another value; ``out_indices`` or ``output`` of a network with a head.
        UsageError: the trained weights come with trevsnn-networks, which is not installed.
    """
    if features_only:
        return FeatureNet(create_model(name, pretrained, **overrides), out_indices, output or "states")
    if out_indices is not None or output is not None:
        raise ValueError("out_indices and output are for maps of levels: set features_only=True, or leave them out.")
    model = _create(name, pretrained, overrides)
    model.pretrained_cfg |= preset_data_config(name, model)
    return model


def _create(name: str, pretrained: bool, overrides: dict[str, Any]) -> TRevSNN:
    if name not in PRESETS:
        raise ValueError(f"there is no model {name!r}; there are {', '.join(PRESETS)}.")
    known = [field.name for field in fields(TRevSNNConfig)]
    if unknown := [key for key in overrides if key not in known]:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known)}.")
    if pretrained:
        folder = pretrained_folder(name.removeprefix("trevsnn_").replace("_", "-"))
        if folder is None:
            raise ValueError(f"there are no pretrained weights for {name}: create it with pretrained=False.")
        return TRevSNN.from_pretrained(folder, **overrides).train()
    return TRevSNN(TRevSNNConfig(**{**PRESETS[name], **overrides}))
