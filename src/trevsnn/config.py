"""What a training run is made of: typed, validated, read from YAML and the command line."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from trevsnn.model import TRevSNNConfig

RECIPES = resources.files("trevsnn") / "recipes"


@dataclass
class DataConfig:
    """Which pictures, and how they are changed on their way into the network.

    Attributes:
        name: the data set.
        root: folder it lies in; None looks where Debian's package and earlier downloads put it. Digits need none.
        download: whether to fetch what is not found.
        image_size: side in pixels; pictures of another size are resized (bilinear).
        crop_padding: zero pixels added around a training picture before a random crop of its own size.
        flip: mirror half of the training pictures.
        erasing: share of the training pictures with a random rectangle blanked.
        rotation: largest random rotation of a training picture, degrees.
        workers: loading processes; 0 loads in the training process.
    """

    name: Literal["digits", "fashion-mnist"] = "digits"
    root: str | None = None
    download: bool = True
    image_size: int = 8
    crop_padding: int = 1
    flip: bool = False
    erasing: float = 0.0
    rotation: float = 0.0
    workers: int = 0

    def __post_init__(self) -> None:
        _at_least("data.image_size", self.image_size, 1)
        _at_least("data.crop_padding", self.crop_padding, 0)
        _at_least("data.workers", self.workers, 0)
        _within("data.erasing", self.erasing, 0, 1)
        _within("data.rotation", self.rotation, 0, 180)


@dataclass
class OptimConfig:
    """The optimizer and its learning rate over time: linear warm-up, then a cosine.

    Attributes:
        name: AdamW or LAMB, of timm.
        lr: after the warm-up.
        weight_decay: on everything but biases, gains and other vectors.
        warmup_epochs: from ``warmup_lr`` to ``lr``.
        warmup_lr: at the first step.
        min_lr: at the last step.
        clip_norm: largest norm of the whole gradient; None for no clipping.
    """

    name: Literal["adamw", "lamb"] = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup_epochs: int = 2
    warmup_lr: float = 1e-5
    min_lr: float = 1e-6
    clip_norm: float | None = 5.0

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "warmup_lr", "min_lr"):
            _within(f"optim.{name}", getattr(self, name), 0, math.inf)
        _at_least("optim.warmup_epochs", self.warmup_epochs, 0)
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"optim.clip_norm is {self.clip_norm}; it must be positive, or null for no clipping.")


@dataclass
class RunConfig:
    """One training run.

    Attributes:
        model: the network.
        data: the pictures.
        optim: the optimizer.
        epochs: passes over the training part.
        batch_size: pictures of a step.
        seed: of weights, data order and augmentation.
        precision: "32-true", "bf16-mixed" (autocast), or "64-true".
        loss: "deep_supervision" over all heads, or "temporal" (TET) over all timesteps.
        label_smoothing: of the cross entropies.
        slope_epochs: epochs over which the negative slope of the leaky ReLUs goes from 0 to 1; 0 for 1 throughout.
        ema_decay: of the averaged weights, which are then the ones evaluated; None for no averaging.
        checkpoint_seconds: save after so long within an epoch; the end of an epoch is always saved.
        accelerator: as Lightning Fabric names it: auto, cpu, cuda, mps.
    """

    model: TRevSNNConfig = field(default_factory=TRevSNNConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    epochs: int = 30
    batch_size: int = 64
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"
    loss: Literal["deep_supervision", "temporal"] = "deep_supervision"
    label_smoothing: float = 0.1
    slope_epochs: int = 0
    ema_decay: float | None = None
    checkpoint_seconds: float = 600.0
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    def __post_init__(self) -> None:
        _at_least("epochs", self.epochs, 1)
        _at_least("batch_size", self.batch_size, 2)  # BatchNorm needs two values
        _at_least("seed", self.seed, 0)
        _at_least("slope_epochs", self.slope_epochs, 0)
        _within("label_smoothing", self.label_smoothing, 0, 1)
        _within("checkpoint_seconds", self.checkpoint_seconds, 0, math.inf)
        if self.ema_decay is not None:
            _within("ema_decay", self.ema_decay, 0, 1)
        if self.optim.warmup_epochs >= self.epochs:
            raise ValueError(
                f"optim.warmup_epochs is {self.optim.warmup_epochs} of {self.epochs} epochs: warm up for fewer, or train longer."
            )


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(Path(item.name).stem for item in RECIPES.iterdir() if item.name.endswith(".yaml"))


def recipe_path(name: str) -> Path:
    """The file of a shipped recipe. Raises ValueError for an unknown name."""
    if name not in recipe_names():
        raise ValueError(f"there is no recipe {name!r}; there are {', '.join(recipe_names())}.")
    return Path(str(RECIPES / f"{name}.yaml"))


def to_yaml(config: RunConfig) -> str:
    """The whole resolved config, in the form ``--config`` reads."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as plain dicts, lists and scalars."""
    plain = asdict(config)
    plain["model"]["channels"] = list(config.model.channels)
    return plain


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}.")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie in {low}..{high}.")
