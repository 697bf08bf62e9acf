"""A config for a folder of one's own pictures, chosen from what it holds, where no config and no recipe is given.

Nothing here loads PyTorch, and what looks at pictures is loaded when there are some.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from trevsnn.errors import RunError, listed
from trevsnn.run.config import RunConfig, config_of, parse_options
from trevsnn.run.misfits import Facts
from trevsnn.run.options import flatten, nest
from trevsnn.run.recipes import read_recipe

if TYPE_CHECKING:
    from trevsnn.data.pictures.look import Look

BASE = "_own-pictures"
LARGEST = 224  # pixels of the input's longer side
SAME_ASPECT, OBLONG = 1.1, 1.2  # within this factor aspects are the same; from this one on they are not square
FEWEST, MOST = 16, 64  # items of a training step
NAMED = 3  # files that are left out
STEPS = 50  # of an epoch, where the pictures suffice


class Network(NamedTuple):
    """A network for inputs up to some size.

    Attributes:
        side: square root of the largest input's area, pixels.
        stride: pixels per element of the lowest level.
        channels: of the levels.
    """

    side: float
    stride: int
    channels: tuple[int, ...]


#: The lowest level has about 8 x 8 to 56 x 56 elements, the top level 4 x 4 to 14 x 14. The first three are the recipes' networks
#: of digits, cifar-10 and tiny-imagenet; the last has the channels of trevsnn_nano, as few have as many pictures as ImageNet.
NETWORKS = (
    Network(12, 1, (24, 64, 96)),
    Network(40, 1, (16, 64, 112, 64)),
    Network(80, 2, (16, 64, 112, 80)),
    Network(math.inf, 4, (32, 64, 96, 128)),
)


def is_own_pictures(given: Mapping[str, Any]) -> bool:
    """Whether options, by dotted names, are of a folder of one's own pictures, and of neither a config nor a recipe."""
    own = given.get("data.root") is not None and given.get("data.name", "folder") == "folder"
    return own and given.get("config") is None


def config_for(folder: Path | str, options: Sequence[str] = ()) -> RunConfig:
    """The config that ``trevsnn train --data.root FOLDER`` trains by: ``config_for("pictures", ["--epochs", "3"])``.

    Args:
        folder: with CLASS folders of pictures, or with train/CLASS and perhaps val/CLASS and test/CLASS.
        options: of the command line; they win over what is chosen.

    Raises:
        RunError: there is no such folder, it is laid out otherwise, holds recordings, or has one class alone or an empty one.
        UnreadableError: a picture that was looked at cannot be read.
        jsonargparse.ArgumentError: an unknown option, or a value of the wrong type.
        ValueError: a value that the config's own checks refuse.
    """
    given = parse_options(["--data.root", str(folder), *options])
    options_given = vars(given.as_flat())
    return config_of(given, as_yaml(choose(options_given, look_for(options_given))))


def look_for(options: Mapping[str, Any]) -> Look:
    """A look at ``data.root``.

    Raises:
        RunError: as :func:`trevsnn.data.pictures.look.look_at`; where it holds recordings, says how these are trained on.
    """
    from trevsnn.data.pictures.look import look_at

    root = Path(options["data.root"])
    try:
        return look_at(
            root,
            skip=options.get("data.on_unreadable") == "skip",
            exif_orientation=options.get("data.exif_orientation", True),
        )
    except RunError as error:
        if not _holds_recordings(root):
            raise
        raise RunError(
            f"{root} holds recordings of an event camera, and without a recipe a folder is one of pictures: give --recipe n-mnist "
            "--data.name recordings --data.sensor W H --model.num_classes N, too."
        ) from error


def _holds_recordings(root: Path) -> bool:
    from trevsnn.data.kinds import kind_of

    try:
        return kind_of(root) == "recordings"
    except RunError:  # neither, or no folder
        return False


def choose(options: Mapping[str, Any], look: Look) -> dict[str, Any]:
    """What is chosen from the pictures and is not among the options given; both by dotted names."""
    colours = any(options.get(f"data.{name}") for name in ("on_device", "auto_augment", "color_jitter"))
    wanted = options.get("data.grey", options["model.in_chans"] == 1 if "model.in_chans" in options else None)
    grey = look.grey and not colours if wanted is None else wanted
    size = options.get("data.image_size") or as_image_size(*input_size(look))
    height, width = (size, size) if isinstance(size, int) else size
    network = network_for(height, width)
    shorter = min(height, width)
    large = min(look.height, look.width) >= 2 * shorter
    epochs = options.get("epochs", read_recipe(BASE)["epochs"])
    chosen = {
        "data.image_size": size,
        "data.grey": grey,
        "data.flip": not grey,
        "data.crop_padding": max(1, shorter // 16) if options.get("data.crop", "pad") == "pad" else 0,
        "data.reduced": large and not options.get("data.on_device", False),
        "model.num_classes": len(look.classes),
        "model.in_chans": 1 if grey else 3,
        "model.channels": list(network.channels),
        "model.encoder_stride": network.stride,
        "batch_size": batch_size(look.pictures),
        "optim.warmup_epochs": warmup_epochs(epochs),
    }
    return {name: value for name, value in chosen.items() if name not in options}


def as_yaml(chosen: Mapping[str, Any], recipe: str = BASE) -> str:
    """What is chosen, by dotted names, on top of a recipe, as YAML that a config begins from."""
    return yaml.safe_dump(nest(flatten(read_recipe(recipe)) | dict(chosen)), sort_keys=False)


def base_of(options: Mapping[str, Any], *, look: bool) -> tuple[dict[str, Any], Facts | None]:
    """What the options change, by dotted names, and what is known of the folder; without a look, what holds for all.

    Raises:
        RunError: as :func:`trevsnn.data.pictures.look.look_at`.
    """
    base = flatten(read_recipe(BASE))
    if not look:
        return base | {"optim.warmup_epochs": 0.0}, None
    seen = look_for(options)
    base |= choose(options, seen)
    return base, facts_of_look(seen, base | dict(options))


def facts_of_look(look: Look, values: Mapping[str, Any]) -> Facts:
    """What does not fit the folder if it is otherwise; ``values``, by dotted names, say whether it is read as grey."""
    return Facts(len(look.classes), 1 if values["data.grey"] else 3, look.pictures)


def input_size(look: Look) -> tuple[int, int]:
    """Height and width of the network's input: about the pictures' medians, but ``LARGEST`` at most.

    It is square, with the shorter of the two as its side, unless three quarters of the pictures have about the median's aspect
    and that is clearly not square. Both are multiples of the pixels that an element of the network's top level stands for.
    """
    height, width = look.height, look.width
    aspects = [w / h for h, w in look.sizes]
    aspect = median(aspects)
    alike = mean(aspect / SAME_ASPECT <= a <= aspect * SAME_ASPECT for a in aspects)
    if alike < 0.75 or max(aspect, 1 / aspect) < OBLONG:
        height = width = min(height, width)
    scale = min(1, LARGEST / max(height, width))
    height, width = height * scale, width * scale
    network = network_for(height, width)
    multiple = network.stride * 2 ** (len(network.channels) - 2)  # resolution halves but to the last level
    return _rounded(height, multiple), _rounded(width, multiple)


def as_image_size(height: int, width: int) -> Any:
    """The value of ``data.image_size``."""
    return height if height == width else [height, width]


def network_for(height: float, width: float) -> Network:
    """The smallest network that is meant for an input of that area."""
    side = math.sqrt(height * width)
    return next(network for network in NETWORKS if side <= network.side)


def batch_size(pictures: int) -> int:
    """A power of two so that an epoch has ``STEPS`` steps or more, but 16 at least, and no more than there are pictures."""
    wanted = 2 ** int(math.log2(max(1, pictures / STEPS)))
    return max(2, min(pictures, MOST, max(FEWEST, wanted)))


def warmup_epochs(epochs: int) -> float:
    """Of a run of so many epochs."""
    return epochs / 20


def _rounded(pixels: float, multiple: int) -> int:
    return max(1, int(pixels / multiple + 0.5)) * multiple


def describe(look: Look, chosen: Mapping[str, Any], init: str | None = None) -> list[str]:
    """What was looked at and what was chosen, a line each."""
    kind = "grey" if look.grey else "in colour"
    lines = [
        f"{look.root}: {len(look.classes)} classes, {look.pictures:,} pictures to train on; of {len(look.sizes):,} looked at the "
        f"median is {look.height:g} x {look.width:g} (height x width), {kind}"
    ]
    if len(look.parts) < 2:
        lines.append("about a tenth of each class is held out for validation, by a hash of the files' names")
    lines += [f"left out: {listed(paths, NAMED)} ({reason})" for reason, paths in look.left_out.items()]
    lines.append("chosen: " + ", ".join(f"{name} {_plain(value)}" for name, value in chosen.items()))
    if init is not None and "model.channels" in chosen:
        lines.append(
            f"{init} does not say what its network is: if it is another one, give --recipe, --config or --model.*"
        )
    elif init is not None:
        lines.append(f"the network and, where it is known, the size of its pictures are those of {init}")
    if chosen.get("data.flip"):
        lines.append(
            "half of the pictures are mirrored in training: give --data.flip false where left and right differ"
        )
    return lines


def _plain(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).partition("\n")[0]
