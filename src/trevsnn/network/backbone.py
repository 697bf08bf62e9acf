"""The network as timm's users expect one: features, their sizes, heads that come and go, groups of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, overload

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import FeatureInfo
from torch import Tensor, nn

from trevsnn.checks import choice
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.encoders import AnnealedLeakyReLU
from trevsnn.network.heads import AuxiliaryHead, LastHead, RatesHead, itself, pool_of
from trevsnn.network.start import start_head
from trevsnn.network.trunk import Read, Trunk

AUXILIARY_HEADS = 3

#: Side of the pictures that an encoder of a stride is made for.
_SIZES = {4: 224, 2: 64, 1: 32}


class Backbone(Trunk):
    """:class:`trevsnn.TRevSNN`'s side towards timm.

    A level's map is its float state after the last timestep, (B, C, H, W). timm's functions take names and meaning from here:
    ``create_optimizer_v2(layer_decay=...)``, ``timm.data.resolve_model_data_config``, its training script.

    Attributes:
        heads: of :func:`make_heads`.
        num_classes: K; 0 without a classifier.
        pretrained_cfg, default_cfg: input_size, mean, std, crop_pct and so on, as timm's ``pretrained_cfg``; of networks that
            come with the package what their weights were trained with.
    """

    heads: nn.ModuleList
    num_classes: int
    pretrained_cfg: dict[str, Any]

    @property
    def default_cfg(self) -> dict[str, Any]:
        """``pretrained_cfg``."""
        return self.pretrained_cfg

    @property
    def num_features(self) -> int:
        """Channels of the top level, which are those of the pooled features, too."""
        return self.config.channels[-1]

    @property
    def head_hidden_size(self) -> int:
        """Columns of what the head makes of the features before its classifier."""
        return self.num_features

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels, reduction and module of every level, lowest first."""
        return feature_info(self.config, tuple(range(len(self.levels))))

    def forward_features(self, x: Tensor) -> Tensor:
        """The top level's state after the last timestep, (B, C, H, W), before any threshold.

        With ``readout="mean"`` too, though the head reads the states of all timesteps there.

        Raises:
            ValueError: x has another shape than :meth:`forward` takes, or is not floating point.
        """
        return self._read(x, [Read(self.config.timesteps - 1, -1, itself)])[0]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, K) of what :meth:`forward_features` gives, by the last head: those of :meth:`forward`, bit for bit.

        Args:
            features: (B, C, H, W).
            pre_logits: give the pooled features (B, C), the share of spikes of each channel, in place of logits.

        Raises:
            ValueError: the network has ``readout="mean"``, whose logits are of the states of all timesteps.
        """
        if self.config.readout == "mean":
            raise ValueError(
                "the head of a network with readout='mean' reads the states of all timesteps, and features are the last "
                "one's: call the network itself."
            )
        head = self.heads[-1]
        pooled = pool_of(head)(features)
        return pooled if pre_logits else head(pooled)

    @overload
    def forward_intermediates(
        self, x: Tensor, indices: int | Sequence[int] | None = None, norm: bool = False, stop_early: bool = False,
        output_fmt: str = "NCHW", *, intermediates_only: Literal[True],
    ) -> list[Tensor]: ...  # fmt: skip

    @overload
    def forward_intermediates(
        self, x: Tensor, indices: int | Sequence[int] | None = None, norm: bool = False, stop_early: bool = False,
        output_fmt: str = "NCHW", intermediates_only: Literal[False] = False,
    ) -> tuple[Tensor, list[Tensor]]: ...  # fmt: skip

    def forward_intermediates(
        self, x: Tensor, indices: int | Sequence[int] | None = None, norm: bool = False, stop_early: bool = False,
        output_fmt: str = "NCHW", intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:  # fmt: skip
        """The states of levels after the last timestep, (B, C_l, H_l, W_l), lowest level first.

        Args:
            x: as :meth:`forward` takes it.
            indices: the levels, negative ones from the top; the last n of a number n; all of None.
            norm: for timm's sake: there is no norm after a level.
            stop_early: compute nothing that only levels above the highest of ``indices`` need; the features are then that
                level's.
            output_fmt: "NCHW".
            intermediates_only: leave out the features.

        Returns:
            What :meth:`forward_features` gives, and the list; or the list.

        Raises:
            ValueError: a level or format that there is not; a bad input.
        """
        choice("output_fmt", output_fmt, ("NCHW",))
        taken = take_levels(len(self.levels), indices)
        top = taken[-1] if stop_early else len(self.levels) - 1
        last = self.config.timesteps - 1
        maps = self._read(x, [Read(last, level, itself) for level in dict.fromkeys([*taken, top])], top)
        return maps[: len(taken)] if intermediates_only else (maps[-1], maps[: len(taken)])

    def get_classifier(self) -> nn.ModuleList:
        """All heads, which training with deep supervision trains."""
        return self.heads

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put new heads, with the derived start, in the place of the old ones; ``config`` and ``num_classes`` say so.

        Args:
            num_classes: K; 0 for none: :meth:`forward` then gives pooled features (B, C).
            global_pool: None or "avg"; or, without classes, "": :meth:`forward` then gives the map (B, C, H, W). A saved
                network does not remember that.

        Raises:
            ValueError: another value.
        """
        choice("global_pool", global_pool, (None, "avg", "") if num_classes == 0 else (None, "avg"))
        self.config = replace(self.config, num_classes=num_classes)
        heads = nn.ModuleList([nn.Identity()]) if global_pool == "" else make_heads(self.config)
        for head in heads:
            start_head(head)
        like = next(self.levels.parameters())
        slopes = [module.slope for module in self.modules() if isinstance(module, AnnealedLeakyReLU)]
        self.heads, self.num_classes = heads.to(like.device, like.dtype).train(self.training), num_classes
        self.set_slope(slopes[0] if slopes else 1.0)
        self.pretrained_cfg = {**self.pretrained_cfg, "num_classes": num_classes, "classifier": classifiers(heads)}

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Groups of parameters from the input on, for timm's layer-wise decay of learning rates: the encoder, projections of
        single timesteps among it, then each level with all its timesteps; heads, which match nothing, are last."""
        return group_matcher()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Nothing: "exact" and "reversible" recompute by themselves.

        Raises:
            ValueError: to be enabled in "autograd", which keeps everything.
        """
        if enable and self.backprop == "autograd":
            raise ValueError(
                "in backprop 'autograd' nothing is recomputed: call set_backprop('exact') for less memory."
            )


def group_matcher() -> dict[str, str]:
    """Patterns of the names of parameters, the group nearest to the input first."""
    return {"stem": r"^encoder|^levels\.0\.steps\.\d+\.below\.", "levels": r"^levels\.(\d+)"}


def make_heads(config: TRevSNNConfig) -> nn.ModuleList:
    """The heads of a network: three auxiliary ones, for images, and the last; or without classes the pool of the last."""
    if config.num_classes == 0:
        return nn.ModuleList([RatesHead(config.read_divisor)])
    channels, count = config.channels[-1], AUXILIARY_HEADS if config.input == "image" else 0
    auxiliary = [AuxiliaryHead(channels, config.num_classes) for _ in range(count)]
    return nn.ModuleList([*auxiliary, LastHead(channels, config.num_classes, config.read_divisor)])


def feature_info(config: TRevSNNConfig, levels: tuple[int, ...]) -> FeatureInfo:
    """timm's description of the levels' maps: the side halves at each but the last, which keeps that of the one before."""
    rows = [
        {"num_chs": channels, "reduction": reduction, "module": f"levels.{level}"}
        for level, (channels, reduction) in enumerate(zip(config.channels, reductions(config), strict=True))
    ]
    return FeatureInfo(rows, levels)


def reductions(config: TRevSNNConfig) -> list[int]:
    """By how much the side of each level's map is smaller than the input's."""
    top = len(config.channels) - 1
    return [(config.encoder_stride or 1) * 2 ** min(level, top - 1) for level in range(top + 1)]


def take_levels(levels: int, indices: int | Sequence[int] | None) -> tuple[int, ...]:
    """The levels that ``indices`` names, each once, lowest first.

    Raises:
        ValueError: there are none, or one that there is not.
    """
    chosen = range(levels) if indices is None else range(-indices, 0) if isinstance(indices, int) else indices
    if not chosen or not all(-levels <= level < levels for level in chosen):
        raise ValueError(
            f"the levels are {indices!r}; give one or more of 0..{levels - 1}, negative ones from the top, or how many of "
            "the last."
        )
    return tuple(sorted({level % levels for level in chosen}))


def data_config(config: TRevSNNConfig, heads: nn.ModuleList, size: int | None = None) -> dict[str, Any]:
    """``pretrained_cfg`` of a network that nobody trained: ImageNet's mean and deviation for pictures of three channels.

    Args:
        config, heads: of the network.
        size: side of the pictures or frames; None for what the encoder is made for.
    """
    size, channels = size or _SIZES[config.encoder_stride or 1], config.in_chans or 1
    pooled = -(-size // reductions(config)[-1])
    colours = config.input == "image" and channels == 3
    first = "encoder.stem.conv" if config.input == "image" else tuple(
        f"levels.0.steps.{t}.below" for t in range(config.timesteps)
    )  # fmt: skip
    return {
        "input_size": (channels, size, size),
        "mean": IMAGENET_DEFAULT_MEAN if colours else (0.0,) * channels,
        "std": IMAGENET_DEFAULT_STD if colours else (1.0,) * channels,
        "crop_pct": 0.9655, "interpolation": "bilinear", "pool_size": (pooled, pooled),
        "num_classes": config.num_classes, "first_conv": first, "classifier": classifiers(heads),
    }  # fmt: skip


def classifiers(heads: nn.ModuleList) -> tuple[str, ...]:
    """Names of the linear maps of the heads."""
    return tuple(f"heads.{name}" for name, module in heads.named_modules() if isinstance(module, nn.Conv2d))
