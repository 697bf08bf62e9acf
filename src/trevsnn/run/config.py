"""The config of a training run: typed, validated, and read from YAML files, recipes and the command line alike.

Nothing here loads PyTorch, so that a mistake in a config is reported at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from trevsnn.checks import at_least, within
from trevsnn.data.config import DataConfig
from trevsnn.errors import UsageError
from trevsnn.network.config import TRevSNNConfig

RECIPES = resources.files("trevsnn") / "recipes"
DEFAULT_RECIPE = "digits"

#: As Lightning Fabric names them.
Accelerator = Literal["auto", "cpu", "cuda", "mps"]


@dataclass
class OptimConfig:
    """The optimizer and its learning rate over time: linear warm-up, then a cosine.

    Attributes:
        name: AdamW, LAMB, or Muon, of timm. Muon takes orthogonal steps in matrices, as large as AdamW's would be, and
            AdamW's with a fifth of ``lr`` in vectors and depthwise kernels (Jordan et al., 2024).
        lr: after the warm-up.
        lr_per: the learning rates are meant for steps of so many items and grow in proportion with ``batch_size``; None
            takes them as they are.
        weight_decay: on everything but biases, gains and other vectors.
        warmup_epochs: from ``warmup_lr`` to ``lr``; a part of one, too.
        warmup_lr: at the first step.
        min_lr: at the last step.
        clip: largest norm of the whole gradient ("norm"), or of each unit's as a share of its weights' norm ("agc");
            None for no clipping.
        clip_mode: "norm", or "agc", adaptive gradient clipping (Brock et al., ICML 2021), of timm.
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

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "warmup_lr", "min_lr", "warmup_epochs"):
            within(f"optim.{name}", getattr(self, name), 0, math.inf)
        if self.lr_per is not None:
            at_least("optim.lr_per", self.lr_per, 1)
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"optim.clip is {self.clip}; it must be positive, or null for no clipping.")


@dataclass
class RunConfig:
    """One training run.

    Attributes:
        model: the network.
        data: the pictures or recordings.
        optim: the optimizer.
        epochs: passes over the training part.
        batch_size: items of a step, over all processes and ``accumulate`` parts.
        accumulate: parts of a step that each process runs one after the other, adding up gradients.
        seed: of weights, data order and augmentation.
        precision: "32-true", "bf16-mixed" (autocast), or "64-true".
        loss: "deep_supervision" over all heads, or "temporal" (TET) over all timesteps.
        label_smoothing: of the cross entropies.
        slope_epochs: epochs over which the negative slope of the leaky ReLUs goes from 0 to 1; 0 for 1 throughout.
        ema_decay: of the averaged weights, which are then the ones evaluated; None for no averaging.
        checkpoint_seconds: save after so long within an epoch; the end of an epoch is always saved.
        sync_batchnorm: batch statistics over all processes instead of each its own.
        max_nonfinite: stop after so many steps one after the other with a gradient that is not finite. Such steps are
            skipped and counted.
        accelerator: as Lightning Fabric names it: auto, cpu, cuda, mps.
    """

    model: TRevSNNConfig = field(default_factory=TRevSNNConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    epochs: int = 30
    batch_size: int = 64
    accumulate: int = 1
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"
    loss: Literal["deep_supervision", "temporal"] = "deep_supervision"
    label_smoothing: float = 0.1
    slope_epochs: int = 0
    ema_decay: float | None = None
    checkpoint_seconds: float = 600.0
    sync_batchnorm: bool = False
    max_nonfinite: int = 10
    accelerator: Accelerator = "auto"

    def __post_init__(self) -> None:
        at_least("epochs", self.epochs, 1)
        at_least("batch_size", self.batch_size, 2)  # BatchNorm needs two values
        at_least("accumulate", self.accumulate, 1)
        at_least("max_nonfinite", self.max_nonfinite, 1)
        at_least("seed", self.seed, 0)
        at_least("slope_epochs", self.slope_epochs, 0)
        within("label_smoothing", self.label_smoothing, 0, 1)
        within("checkpoint_seconds", self.checkpoint_seconds, 0, math.inf)
        if self.ema_decay is not None:
            within("ema_decay", self.ema_decay, 0, 1)
        if self.optim.warmup_epochs >= self.epochs:
            raise ValueError(
                f"optim.warmup_epochs is {self.optim.warmup_epochs} of {self.epochs} epochs: warm up for fewer, or train longer."
            )


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    names = (Path(item.name) for item in RECIPES.iterdir())
    return sorted(name.stem for name in names if name.suffix == ".yaml" and not name.stem.startswith("_"))


def recipe_yaml(name: str) -> str:
    """A shipped recipe as one config. Its key ``base`` names another that it changes; those with ``_`` are bases only.

    Raises:
        ValueError: an unknown name.
    """
    if name not in recipe_names():
        raise ValueError(f"there is no recipe {name!r}; there are {', '.join(recipe_names())}.")
    return yaml.safe_dump(_read_recipe(name), sort_keys=False)


def add_config_options(parser: ArgumentParser) -> None:
    """Add an option for every field of :class:`RunConfig`, and ``--config FILE`` and ``--recipe NAME`` to begin from.

    Parse with ``defaults=False``; :func:`config_of` turns the parsed values into a config.
    """
    parser.add_argument(
        "--config", "--recipe", action=_BeginFrom, nargs="?", const="", metavar="FILE_OR_NAME",
        help="Begin from a YAML file, or from a shipped recipe by its name; options that follow change it. "
        f"Recipes: {', '.join(recipe_names())} (default: {DEFAULT_RECIPE}).",
    )  # fmt: skip
    parser.add_class_arguments(RunConfig)


class _BeginFrom(ActionConfigFile):
    """Read a config file or a recipe in the place where it stands among the options."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, value: str, option_string: str | None = None
    ) -> None:
        if option_string == "--config" and not value:
            raise UsageError("--config names no file: give --config FILE.")
        if option_string == "--recipe":
            try:
                value = recipe_yaml(value)
            except ValueError as error:
                raise UsageError(str(error)) from error
        super().__call__(parser, namespace, value, option_string)
        namespace[self.dest][-1] = option_string  # to tell the user which of them it was


def config_of(values: Namespace) -> RunConfig:
    """The config that parsed options make: what is not given has its default, or with no config given the recipe's.

    Args:
        values: of :func:`add_config_options`, without defaults.

    Raises:
        ValueError: a value that the config's own checks refuse.
    """
    values = values.clone()
    parser = _config_parser()
    begin = None if values.pop("config", None) else parser.parse_string(recipe_yaml(DEFAULT_RECIPE))
    whole = parser.instantiate(parser.parse_object(values, namespace=begin))
    return RunConfig(**{field.name: whole[field.name] for field in fields(RunConfig)})


def parse_config(arguments: Sequence[str]) -> RunConfig:
    """The config that options of ``trevsnn train`` make: ``["--recipe", "digits", "--epochs", "3"]``.

    Raises:
        jsonargparse.ArgumentError: an unknown option, a value of the wrong type, or an unreadable file.
        UsageError: an unknown recipe.
        ValueError: a value that the config's own checks refuse.
    """
    return config_of(_config_parser().parse_args(arguments, defaults=False))


def recipe_config(name: str, options: Sequence[str] = ()) -> RunConfig:
    """A shipped recipe with changes; raises as :func:`parse_config` does."""
    return parse_config(["--recipe", name, *options])


def _config_parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, print_config=None)
    add_config_options(parser)
    return parser


def _read_recipe(name: str) -> dict[str, Any]:
    own = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    base = own.pop("base", None)
    if base is None:
        return own
    merged = _read_recipe(base)
    for key, value in own.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    return merged


def to_yaml(config: RunConfig) -> str:
    """The whole resolved config, in the form ``--config`` reads."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as plain dicts, lists and scalars."""
    plain = asdict(config)
    plain["model"]["channels"] = list(config.model.channels)
    plain["data"]["sensor"] = list(config.data.sensor)
    return plain
