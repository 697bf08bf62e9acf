"""The maps of chosen levels, for detection, segmentation and whatever else is built on a backbone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from timm.models import FeatureInfo
from torch import Tensor, nn

from trevsnn.checks import choice
from trevsnn.network.backbone import feature_info, group_matcher, take_levels
from trevsnn.network.blocks import Level
from trevsnn.network.heads import itself
from trevsnn.network.model import TRevSNN
from trevsnn.network.spike import spike
from trevsnn.network.trunk import Read, Trunk, highest_needed

#: What a map is of: a level's states c[l,T-1], float; or their spikes s(c), 0 and 1 of the states' dtype.
Output = Literal["states", "spikes"]


class FeatureNet(Trunk):
    """A network without heads that gives the maps of chosen levels after the last timestep.

    It is trained by the backward passes of :class:`trevsnn.TRevSNN`, with their memory. What the maps do not depend on is
    left out, so that every parameter gets a gradient: the heads, and at the last timesteps the levels far above the highest
    chosen one. Weights have the names that they have in the classifier, whose ``state_dict`` may be loaded as it is.

    Args:
        model: the classifier, of which the features are a copy, with its mode of the backward pass.
        out_indices: the levels, negative ones from the top; the last n of a number n; all of None.
        output: "states", float, as timm's ``forward_intermediates`` gives them; or "spikes", their 0 and 1, as other levels
            see them, with the surrogate gradient.

    Attributes:
        feature_info: timm's: ``channels()``, ``reduction()`` and ``module_name()`` of the maps.
        pretrained_cfg (dict[str, Any]): the classifier's, with ``num_classes`` 0.
        left_out: names of the classifier's weights that are not here.

    Raises:
        ValueError: there is no such level or output.
    """

    def __init__(
        self, model: TRevSNN, out_indices: int | Sequence[int] | None = None, output: Output = "states"
    ) -> None:
        super().__init__()
        choice("output", output, get_args(Output))
        self.out_indices, self.output = take_levels(len(model.levels), out_indices), output
        self.config = replace(model.config, num_classes=0)
        self.num_classes, self.pretrained_cfg = 0, {**model.pretrained_cfg, "num_classes": 0, "classifier": None}
        self.read_alpha = model.read_alpha
        self._backprop, self._sees = model.backprop, model._sees
        self.encoder, self.levels = copy.deepcopy(model.encoder), copy.deepcopy(model.levels)
        self._cut()
        self.left_out = set(model.state_dict()) - set(self.state_dict())
        self._frozen = min(model.frozen, len(self.levels))
        self.train(model.training)
        self.register_load_state_dict_pre_hook(_leave_out)

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels, reduction and module of the maps that it gives."""
        return feature_info(self.config, self.out_indices)

    @property
    def default_cfg(self) -> dict[str, Any]:
        """``pretrained_cfg``."""
        return self.pretrained_cfg

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps (B, C_l, H_l, W_l) of the chosen levels, lowest first.

        Args:
            x: pictures (B, in_chans, H, W), or event frames (B, T, in_chans, H, W); of the weights' floating dtype.

        Raises:
            ValueError: x has another shape or is not floating point.
        """
        function, of_spikes = (itself, None) if self.output == "states" else (spike, itself)
        last = self.config.timesteps - 1
        reads = [Read(last, level, function, of_spikes) for level in self.out_indices]
        return self._read(x, reads, self.out_indices[-1])

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """As :meth:`trevsnn.TRevSNN.group_matcher`; what is built on the features matches nothing, and is last."""
        return group_matcher()

    def extra_repr(self) -> str:
        return f"out_indices={self.out_indices}, output={self.output!r}"

    def _cut(self) -> None:
        """Leave out the steps and alphas on which no map depends, and levels that have none left."""
        needed = highest_needed(self._sees, self.config.timesteps, self.out_indices[-1])
        levels: list[Level] = list(self.levels)[: needed[0] + 1]  # type: ignore[assignment]
        for i, level in enumerate(levels):
            steps = sum(i <= highest for highest in needed)
            level.steps = level.steps[:steps]
            if len(level.alphas):
                level.alphas = nn.ParameterList(list(level.alphas)[: steps - 1])
        self.levels = nn.ModuleList(levels)


def _leave_out(features: FeatureNet, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Of a classifier's weights, its heads and what the maps do not depend on."""
    for name in [name for name in state_dict if name.startswith(prefix)]:
        if (inner := name.removeprefix(prefix)).startswith("heads.") or inner in features.left_out:
            del state_dict[name]
