"""The named networks as timm's: ``timm.create_model("trevsnn_tiny")``.

Imported as soon as timm is (see ``trevsnn/__init__.py``), so it loads no network before one is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from timm.models import register_model

if TYPE_CHECKING:
    from trevsnn.network.features import FeatureNet
    from trevsnn.network.model import TRevSNN


def _for_timm(name: str, pretrained: bool, options: dict[str, Any]) -> TRevSNN | FeatureNet:
    # timm hands every model the place of its pretrained weights; there are none to fetch.
    from trevsnn.zoo.create import create_model

    known = {
        key: value
        for key, value in options.items()
        if key not in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
    }
    if known.get("drop_rate") == 0:  # which timm's training script always hands over; there is no dropout to set
        del known["drop_rate"]
    return create_model(name, pretrained, **known)  # type: ignore[no-any-return]


@register_model
def trevsnn_tiny(pretrained: bool = False, **options: Any) -> TRevSNN | FeatureNet:
    """T-RevSNN tiny, 17.2 M parameters in training at 1000 classes."""
    return _for_timm("trevsnn_tiny", pretrained, options)


@register_model
def trevsnn_small(pretrained: bool = False, **options: Any) -> TRevSNN | FeatureNet:
    """T-RevSNN small, 32.3 M parameters in training at 1000 classes."""
    return _for_timm("trevsnn_small", pretrained, options)


@register_model
def trevsnn_event_tiny(pretrained: bool = False, **options: Any) -> TRevSNN | FeatureNet:
    """T-RevSNN for event cameras, 10.2 M parameters at 11 classes."""
    return _for_timm("trevsnn_event_tiny", pretrained, options)


@register_model
def trevsnn_nano(pretrained: bool = False, **options: Any) -> TRevSNN | FeatureNet:
    """A small T-RevSNN for pictures of 8 to 64 pixels."""
    return _for_timm("trevsnn_nano", pretrained, options)


@register_model
def trevsnn_digits(pretrained: bool = False, **options: Any) -> TRevSNN | FeatureNet:
    """The network of the digits recipe, for 8 x 8 pictures, with trained weights."""
    return _for_timm("trevsnn_digits", pretrained, options)


@register_model
def trevsnn_fashion_mnist(pretrained: bool = False, **options: Any) -> TRevSNN | FeatureNet:
    """The network of the fashion-mnist recipe, for 28 x 28 pictures, with trained weights in trevsnn-networks."""
    return _for_timm("trevsnn_fashion_mnist", pretrained, options)


@register_model
def trevsnn_cifar_10(pretrained: bool = False, **options: Any) -> TRevSNN | FeatureNet:
    """The network of the cifar-10 recipe, for 32 x 32 pictures, with trained weights in trevsnn-networks."""
    return _for_timm("trevsnn_cifar_10", pretrained, options)


@register_model
def trevsnn_tiny_imagenet(pretrained: bool = False, **options: Any) -> TRevSNN | FeatureNet:
    """The network of the tiny-imagenet recipe, for 64 x 64 pictures of 20 classes, with trained weights in trevsnn-networks."""
    return _for_timm("trevsnn_tiny_imagenet", pretrained, options)


@register_model
def trevsnn_n_mnist(pretrained: bool = False, **options: Any) -> TRevSNN | FeatureNet:
    """The network of the n-mnist recipe, for event frames of 34 x 34 pixels, with trained weights."""
    return _for_timm("trevsnn_n_mnist", pretrained, options)
