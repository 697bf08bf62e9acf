"""The config of a training run: typed, validated, and read from YAML files, recipes and the command line alike.

Nothing here loads PyTorch, so that a mistake in a config is reported at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from trevsnn.checks import at_least, at_most, finite_at_least, within
from trevsnn.data.config import DataConfig
from trevsnn.errors import UsageError
from trevsnn.network.config import TRevSNNConfig
from trevsnn.plain_yaml import PLAIN
from trevsnn.run.config_file import checked_text
from trevsnn.run.optim_config import OptimConfig
from trevsnn.run.options import flatten, split_options, types_of
from trevsnn.run.published import fill_in
from trevsnn.run.recipes import DEFAULT_RECIPE, read_recipe, recipe_names, recipe_yaml
from trevsnn.run.warmup import shortened_warmup
from trevsnn.sizes import join_sizes

#: Devices, as Lightning Fabric names them; "auto" takes the one that there is, else the CPU.
Accelerator = Literal["auto", "cpu", "cuda", "mps"]


#: The least and the largest values of options. BatchNorm needs two items; a run's history is read up to so many epochs.
BOUNDS = {
    "epochs": (1, 100_000), "batch_size": (2, 2**20), "accumulate": (1, 2**20), "max_nonfinite": (1, 10**9),
    "seed": (0, 2**32 - 1), "slope_epochs": (0, 100_000),
}  # fmt: skip


@dataclass
class RunConfig:
    """One training run.

    Attributes:
        model: the network.
        data: the pictures or recordings.
        optim: the optimizer.
        epochs: passes over the training part.
        batch_size: items per training step, in all processes and all ``accumulate`` parts together.
        accumulate: parts into which each process splits its share of a training step, adding up their gradients.
        seed: of initial weights, order of the data and augmentation.
        precision: "32-true", "64-true", "bf16-mixed" for autocast to bfloat16, or "16-mixed" for autocast to float16 with
            loss scaling, for cards before Ampere, which have no bfloat16. The loss is multiplied by a scale, 65,536 at
            first, and the gradient divided by it before it is clipped; a step whose gradient is not finite halves the
            scale, 2,000 others one after the other double it.
        loss: "deep_supervision", over all heads, or "temporal" (TET), over all timesteps.
        label_smoothing: of the cross entropy.
        slope_epochs: epochs in which the negative slope of the leaky ReLUs grows from 0 to 1; 0 for 1 from the start.
        ema_decay: decay of the moving average of the weights, which is then evaluated in their place. None for no
            average.
        ema_warmup: whether that decay grows to its value over the steps. Null: yes, or what ``published`` says.
        start: initial weights: "derived", the network's own, or "published". Null: the first, or what ``published`` says.
        init: trained weights to begin from: the folder of a run, of an export or of ``save_pretrained``, the name of a network that
            comes trained, a .safetensors file, or "hub:OWNER/NAME". Heads are new where the classes are others, and the first
            convolution is adapted where the input channels are.
        freeze: the encoder and so many of the lowest levels, which ``init`` brings, are not trained; 0 for none.
        checkpoint_seconds: time between checkpoints within an epoch; there is always one at its end.
        cuda_graph: replay forward and backward pass of a step as one CUDA graph. A step of a small batch, which waits for
            the host, is several times as fast; "exact" then keeps every float state, since it cannot read alphas.
        sync_batchnorm: batch statistics over all processes, instead of in each process alone.
        max_nonfinite: stop after so many consecutive training steps whose gradient is not finite; each is skipped and
            counted. With "16-mixed" those that halve a loss scale above 1 do not stop a run, which is finding its scale:
            only from 1 on is the scale not at fault.
        accelerator: device, as Lightning Fabric names it: "auto", "cpu", "cuda" or "mps".
        published: train as the published code does where the ImageNet recipes differ from it, by the options that are
            null until then. It refuses other optimizers, rates and losses; epochs, batch, data and precision are free.

    Raises:
        ValueError: a value out of its range, or one that contradicts ``published``.
    """

    model: TRevSNNConfig = field(default_factory=TRevSNNConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    epochs: int = 30
    batch_size: int = 64
    accumulate: int = 1
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    loss: Literal["deep_supervision", "temporal"] = "deep_supervision"
    label_smoothing: float = 0.1
    slope_epochs: int = 0
    ema_decay: float | None = None
    ema_warmup: bool | None = None
    start: Literal["derived", "published"] | None = None
    init: str | None = None
    freeze: int = 0
    checkpoint_seconds: float = 600.0
    cuda_graph: bool = False
    sync_batchnorm: bool = False
    max_nonfinite: int = 10
    accelerator: Accelerator = "auto"
    published: bool = False

    def __post_init__(self) -> None:
        fill_in(self)
        for name, (least, most) in BOUNDS.items():
            at_least(name, getattr(self, name), least)
            at_most(name, getattr(self, name), most)
        within("label_smoothing", self.label_smoothing, 0, 1)
        finite_at_least("checkpoint_seconds", self.checkpoint_seconds, 0)
        if self.ema_decay is not None:
            within("ema_decay", self.ema_decay, 0, 1)
        self._check_beginning()
        if self.cuda_graph and self.accumulate > 1:
            raise ValueError(
                f"cuda_graph replays whole steps, but accumulate is {self.accumulate}: leave out one of them."
            )
        if self.cuda_graph and self.model.backprop == "reversible":
            raise ValueError(
                "cuda_graph and model.backprop 'reversible', which has to read alphas, exclude each other: use exact."
            )
        if self.optim.warmup_epochs >= self.epochs:
            raise ValueError(
                f"optim.warmup_epochs is {self.optim.warmup_epochs} of {self.epochs} epochs: "
                "warm up for fewer, or train longer."
            )

    def _check_beginning(self) -> None:
        at_least("freeze", self.freeze, 0)
        if self.init is not None and self.start == "published":
            raise ValueError("init brings weights, and start 'published' is of new ones: leave out one of them.")
        if self.freeze > 0 and self.init is None:
            raise ValueError(
                f"freeze is {self.freeze}, but without init these levels would stay as they began by chance: name trained weights "
                "with init, or leave it out."
            )
        if self.freeze > len(self.model.channels):
            raise ValueError(
                f"freeze is {self.freeze}, but the network has {len(self.model.channels)} levels: lower it."
            )


def add_config_options(parser: ArgumentParser) -> None:
    """Add an option for every field of :class:`RunConfig`, and ``--config FILE`` and ``--recipe NAME`` to begin from.

    Parse with ``defaults=False``; :func:`config_of` turns the parsed values into a config.
    """
    parser.add_argument(
        "--config", "--recipe", action=_BeginFrom, nargs="?", const="", metavar="FILE_OR_NAME",
        help="Begin from a YAML file, or from a shipped recipe by its name; options that follow change it. "
        f"Recipes: {', '.join(recipe_names())} (default: {DEFAULT_RECIPE}). What it does not say has the default shown below.",
    )  # fmt: skip
    parser.add_class_arguments(RunConfig)


class _BeginFrom(ActionConfigFile):
    """Take the values of a file or a recipe, over those of options before it and under those of options after it."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, value: str, option_string: str | None = None
    ) -> None:
        if option_string == "--config" and not value:
            raise UsageError("--config names no file: give --config FILE.")
        recipe = option_string == "--recipe"  # a text in any case: the parser would read a file in its own way
        value = recipe_yaml(value) if recipe else checked_text(Path(value), types_of(RunConfig))
        super().__call__(parser, namespace, value, option_string)
        namespace[self.dest][-1] = option_string  # to tell the user which of them it was


def config_of(values: Namespace, begin: str | None = None) -> RunConfig:
    """The config that parsed options make, on top of the file or recipe among them, or else of the default recipe.

    Args:
        values: of the options of :func:`add_config_options`, parsed with ``defaults=False``.
        begin: YAML to begin from in place of the default recipe.

    Raises:
        ValueError: a value that the config's own checks refuse.
    """
    values = values.clone()
    parser = config_parser()
    below = None if values.pop("config", None) else parser.parse_string(begin or recipe_yaml(DEFAULT_RECIPE))
    whole = parser.instantiate(parser.parse_object(values, namespace=below))
    return RunConfig(**{field.name: whole[field.name] for field in fields(RunConfig)})


def parse_config(arguments: Sequence[str]) -> RunConfig:
    """The config of a command line: ``parse_config(["--recipe", "n-mnist", "--epochs", "3"])``.

    With fewer epochs than the recipe or file says its warm-up is shorter, in proportion, unless an option gives its length.

    Raises:
        jsonargparse.ArgumentError: an unknown option, or a value of the wrong type.
        UsageError: an unknown recipe, or a file that cannot be read, or names what is no option.
        ValueError: a value that the config's own checks refuse.
    """
    values = parse_options(arguments)
    shorten_warmup(values, arguments)
    return config_of(values)


def parse_options(arguments: Sequence[str]) -> Namespace:
    """The values of a command line, without defaults, for :func:`config_of`. Raises what :func:`parse_config` raises."""
    return config_parser().parse_args(join_sizes(arguments), defaults=False)


def shorten_warmup(values: Namespace, arguments: Sequence[str]) -> float | None:
    """Set ``optim.warmup_epochs`` in parsed values, and return it, where :func:`trevsnn.run.warmup.shortened_warmup` does."""
    given = split_options(arguments)
    files = [
        f"--{option.name}={option.value}" for option in given if option.name in ("config", "recipe") and option.value
    ]
    base = vars(parse_options(files).as_flat()) if files else flatten(read_recipe(DEFAULT_RECIPE))
    warmup = shortened_warmup(base, vars(values.as_flat()), {option.name for option in given})
    if warmup is not None:
        values["optim.warmup_epochs"] = warmup
    return warmup


def recipe_config(name: str, options: Sequence[str] = ()) -> RunConfig:
    """A shipped recipe, changed by options. Raises what :func:`parse_config` raises."""
    return parse_config(["--recipe", name, *options])


@cache  # making it takes longer than what it does
def config_parser() -> ArgumentParser:
    """A parser of the options of :func:`add_config_options`, and of nothing else."""
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, print_config=None, parser_mode=PLAIN)
    add_config_options(parser)
    return parser


def to_yaml(config: RunConfig) -> str:
    """Every value of the config, as YAML that ``--config`` reads."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as plain dicts, lists and scalars."""
    plain = asdict(config)
    plain["model"]["channels"] = list(config.model.channels)
    plain["data"]["sensor"] = list(config.data.sensor)
    if not isinstance(config.data.image_size, int):
        plain["data"]["image_size"] = list(config.data.image_size)
    return plain
