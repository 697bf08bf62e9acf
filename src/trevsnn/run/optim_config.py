"""The part of a run's config that is about its optimizer. Nothing here loads PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trevsnn.checks import at_least, at_most, finite_at_least, within


@dataclass
class OptimConfig:
    """The optimizer, and its learning rate over time: a linear warm-up, then a cosine.

    Attributes:
        name: "adamw", "lamb" or "muon", as timm implements them. Muon (Jordan et al., 2024) makes the updates of
            matrices orthogonal and as large as AdamW's would be; vectors and depthwise kernels get AdamW's with a fifth
            of ``lr``.
        lr: learning rate at the end of the warm-up, where the cosine begins.
        lr_per: the batch size that the learning rates are meant for: they are scaled by ``batch_size`` over it. None
            for no scaling.
        weight_decay: of every weight but vectors, such as biases and gains.
        decay_gains: decay gains, gammas and alphas too. Null, as in ``RunConfig``: false, or what ``published`` says.
        warmup_epochs: length of the warm-up, from ``warmup_lr`` to ``lr``; may be a part of an epoch.
        warmup_lr: learning rate at the first training step.
        min_lr: learning rate at the last training step.
        clip: clip gradients above this: the norm of the whole gradient ("norm"), or of each unit's as a share of its
            weights' norm ("agc"). None for no clipping.
        clip_mode: "norm", or "agc" for adaptive gradient clipping (Brock et al., ICML 2021), as timm implements it.
        agc_heads: whether "agc" clips the heads too. Null: no, as its authors advise, or what ``published`` says.
        layer_decay: factor on the learning rate from one layer to the one below it, for fine-tuning: heads have ``lr``, the highest
            level ``lr * layer_decay``, and so on down to the encoder. None for no decay.
        trust_clip: for "lamb", no trust ratio above 1, so that no weight steps further than ``lr`` times Adam's update.

    Raises:
        ValueError: a value out of its range.
    """

    name: Literal["adamw", "lamb", "muon"] = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup_epochs: float = 2
    warmup_lr: float = 1e-5
    min_lr: float = 1e-6
    lr_per: int | None = None
    clip: float | None = 5.0
    clip_mode: Literal["norm", "agc"] = "norm"
    decay_gains: bool | None = None
    agc_heads: bool | None = None
    layer_decay: float | None = None
    trust_clip: bool = False

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "warmup_lr", "min_lr", "warmup_epochs"):
            finite_at_least(f"optim.{name}", getattr(self, name), 0)
        if self.lr_per is not None:
            at_least("optim.lr_per", self.lr_per, 1)
            at_most("optim.lr_per", self.lr_per, 2**20)
        if self.layer_decay is not None:
            within("optim.layer_decay", self.layer_decay, 0.01, 1)
        if self.trust_clip and self.name != "lamb":
            raise ValueError(f"optim.trust_clip is for optim.name lamb; {self.name} has no trust ratio: leave it out.")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ValueError(f"optim.clip is {self.clip}; it must be positive, or null for no clipping.")
