"""Weights of the published T-RevSNN implementation: their names, and how to load them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from trevsnn.backprop import Backprop
from trevsnn.errors import listed
from trevsnn.network.config import Input, TRevSNNConfig
from trevsnn.network.model import TRevSNN

# Our name -> theirs. Their "level" and "subnet" are our level and timestep.
_RULES = [
    (r"encoder\.stem\.conv\.(.+)", r"stem.down1.0.\1"),
    (r"encoder\.projection\.(.+)", r"stem.down2.0.\1"),
    (r"levels\.0\.steps\.(\d+)\.below\.(.+)", r"stem.\1.down.0.\2"),
    (r"levels\.(\d+)\.shared\.([pd])w2\.(.+)", r"subnet0.level\1.blocks.1.\2wconv2_reuse.\3"),
    (r"levels\.(\d+)\.steps\.(\d+)\.below\.(conv|bn)\.(.+)", r"subnet\2.level\1.fusion.down.encode_\3.\4"),
    (r"levels\.(\d+)\.steps\.(\d+)\.above\.(conv|bn)\.(.+)", r"subnet\2.level\1.fusion.up.encode_\3.\4"),
    (r"levels\.(\d+)\.steps\.(\d+)\.gamma", r"subnet\2.level\1.blocks.0.gamma"),
    (r"levels\.(\d+)\.steps\.(\d+)\.expand1\.([pd])w1\.(.+)", r"subnet\2.level\1.blocks.0.\3wconv1.\4"),
    (r"levels\.(\d+)\.steps\.(\d+)\.expand2\.([pd])w1\.(.+)", r"subnet\2.level\1.blocks.1.\3wconv1.\4"),
    (r"levels\.(\d+)\.steps\.(\d+)\.project1\.([pd])w2\.(.+)", r"subnet\2.level\1.blocks.0.\3wconv2.\4"),
]
SAID = 8  # names in an error
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def published_names(model: TRevSNN) -> dict[str, str]:
    """Map every parameter and buffer name of ``model`` to its name in the published implementation.

    Weights that all timesteps share have one name here; of their names there, one for every ``subnet``, the map gives
    that in ``subnet0``. The alphas of ``subnet0`` there, which nothing uses, have no counterpart here.

    Raises:
        ValueError: the published implementation has no such model (grouped encoding, another stride or depth, links from all
            levels, no alphas, another readout).
    """
    config = model.config
    stride = 4 if config.input == "image" else 1
    ours = (config.encoding, config.encoder_stride, len(config.channels), config.links, config.alphas, config.readout)
    theirs = ("shared", stride, 4, "adjacent", "learned", "last")
    if ours != theirs:
        raise ValueError(
            "the published implementation has no model with encoding={!r}, encoder_stride={}, {} levels, links={!r}, "
            "alphas={!r} and readout={!r}: it takes {!r}, {}, {}, {!r}, {!r} and {!r}.".format(*ours, *theirs)
        )
    names = [*dict(model.named_parameters()), *dict(model.named_buffers())]
    return {name: _published(name, config) for name in names}


def _published(name: str, config: TRevSNNConfig) -> str:
    if match := re.fullmatch(r"levels\.(\d+)\.alphas\.(\d+)", name):
        return f"subnet{int(match[2]) + 1}.alpha{match[1]}"
    if match := re.fullmatch(r"heads\.(\d+)\.(classifier|classifier1|classifier2)\.(.+)", name):
        head = f"cls_blocks.{match[1]}" if config.input == "image" else "cls_blocks"
        wrapped = "" if match[2] == "classifier2" else ".0"  # there, a Sequential around all but the last convolution
        return f"{head}.{match[2]}{wrapped}.{match[3]}"
    for ours, theirs in _RULES:
        if re.fullmatch(ours, name):
            return re.sub(ours, theirs, name)
    raise AssertionError(f"no rule for {name}")


def from_published(
    state_dict: Mapping[str, Tensor], *, input: Input = "image", backprop: Backprop = "exact"
) -> TRevSNN:
    """Build the model whose sizes the published implementation's weights imply, and load them.

    That implementation is the paper's code, https://github.com/BICLab/T-RevSNN; its checkpoints do not come with this package. Of a
    file that holds such a model's state dict::

        import torch
        import trevsnn

        state_dict = torch.load("published.pth", map_location="cpu", weights_only=True)
        model = trevsnn.from_published(state_dict)

    Where the file holds more than that, give the entry with names such as ``subnet0.level0.blocks.0.gamma``. A
    training begins from a .safetensors file of these names with ``--init FILE``.

    Args:
        state_dict: weights under the published names, of any floating dtype; those that all timesteps share may stand under every ``subnet``
            or under ``subnet0`` alone. Without any BatchNorm statistics (parameters alone), these start at 0 and 1,
            with a warning.
        input: "image" or "event"; the published event models have encoders of another form.
        backprop: of the model.

    Returns:
        The model, in evaluation mode, of the weights' floating dtype.

    Raises:
        ValueError: names are missing or left over, shapes do not fit, or shared weights differ; says which.
    """
    config = _implied_config(state_dict, input, backprop)
    model = TRevSNN(config).to(state_dict["subnet0.level0.blocks.0.gamma"].dtype)
    names = published_names(model)
    own = model.state_dict()
    missing = [theirs for theirs in names.values() if theirs not in state_dict]
    statistics = [theirs for theirs in names.values() if theirs.endswith(_STATISTICS)]
    if missing and set(missing) == set(statistics):
        warnings.warn("the weights hold no BatchNorm statistics: these start at mean 0 and variance 1.", stacklevel=2)
        missing = []
    left_over = [name for name in state_dict if name not in set(names.values()) and not _is_redundant(name, state_dict)]
    shapes = [
        f"{theirs} {tuple(state_dict[theirs].shape)} instead of {tuple(own[ours].shape)}"
        for ours, theirs in names.items()
        if theirs in state_dict and state_dict[theirs].shape != own[ours].shape
    ]
    for what, faulty in (("lack", missing), ("have left over", left_over), ("have other shapes:", shapes)):
        if faulty:
            raise ValueError(
                f"the published weights do not make a model of channels {config.channels}, T = {config.timesteps}, "
                f"input {input!r}: they {what} {listed(faulty, SAID)}."
            )
    loaded = {ours: state_dict[theirs] for ours, theirs in names.items() if theirs in state_dict}
    model.load_state_dict({**own, **loaded})
    return model.eval()


def _implied_config(state_dict: Mapping[str, Tensor], input: Input, backprop: Backprop) -> TRevSNNConfig:
    image = input == "image"
    stem = "stem.down1.0.weight" if image else "stem.0.down.0.weight"
    head = "cls_blocks.3.classifier1.0.weight" if image else "cls_blocks.classifier1.0.weight"
    gammas = [f"subnet0.level{level}.blocks.0.gamma" for level in range(4)]
    needed = [stem, head, *gammas, "subnet0.level0.blocks.0.dwconv1.weight"]
    if missing := [name for name in needed if name not in state_dict]:
        raise ValueError(
            f"these are not the published implementation's {input} weights: they lack {listed(missing, SAID)}; give its "
            "state dict, and input='image' or 'event' as it was trained."
        )
    timesteps = {int(m[1]) for name in state_dict if (m := re.match(r"subnet(\d+)\.", name))}
    return TRevSNNConfig(
        channels=tuple(state_dict[name].shape[1] for name in gammas),
        timesteps=max(timesteps) + 1,
        kernel_size=state_dict["subnet0.level0.blocks.0.dwconv1.weight"].shape[-1],
        num_classes=state_dict[head].shape[0],
        in_chans=state_dict[stem].shape[1],
        input=input,
        backprop=backprop,
    )


def _is_redundant(name: str, state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a published name is an unused alpha of subnet0, or another name of a weight all timesteps share."""
    if re.fullmatch(r"subnet0\.alpha[0-3]", name):
        return True
    if not re.fullmatch(r"subnet\d+\.level[0-3]\.blocks\.1\.[pd]wconv2_reuse\..+", name):
        return False
    first = re.sub(r"^subnet\d+", "subnet0", name)
    if first in state_dict and not torch.equal(state_dict[first], state_dict[name]):
        raise ValueError(
            f"{name} differs from {first}, but all timesteps share this weight: the state dict is damaged."
        )
    return first in state_dict
