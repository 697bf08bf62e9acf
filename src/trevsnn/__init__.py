"""Temporal reversible spiking neural networks: training memory independent of T, inference cost independent of T.

``import trevsnn`` loads none of the libraries that take seconds to load: each name below brings what it needs when it is
first used. timm learns of the networks as soon as both are imported, in either order.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

from trevsnn.version import __version__ as __version__

if TYPE_CHECKING:
    from trevsnn import data as data
    from trevsnn import errors as errors
    from trevsnn import network as network
    from trevsnn import neurons as neurons
    from trevsnn import reversible as reversible
    from trevsnn import zoo as zoo
    from trevsnn.network.config import TRevSNNConfig
    from trevsnn.network.features import FeatureNet
    from trevsnn.network.losses import deep_supervision_loss, temporal_loss
    from trevsnn.network.model import TRevSNN
    from trevsnn.reversible.inversion import ReversibilityError
    from trevsnn.zoo.create import create_model
    from trevsnn.zoo.published import from_published, published_names

__all__ = [
    "FeatureNet",
    "ReversibilityError",
    "TRevSNN",
    "TRevSNNConfig",
    "create_model",
    "deep_supervision_loss",
    "from_published",
    "neurons",
    "published_names",
    "reversible",
    "temporal_loss",
]

_MODULE_OF = {
    "FeatureNet": "trevsnn.network.features",
    "ReversibilityError": "trevsnn.reversible.inversion",
    "TRevSNN": "trevsnn.network.model",
    "TRevSNNConfig": "trevsnn.network.config",
    "create_model": "trevsnn.zoo.create",
    "deep_supervision_loss": "trevsnn.network.losses",
    "from_published": "trevsnn.zoo.published",
    "published_names": "trevsnn.zoo.published",
    "temporal_loss": "trevsnn.network.losses",
}
_SUBMODULES = {"data", "errors", "network", "neurons", "reversible", "zoo"}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    elif name in _SUBMODULES:
        value = import_module(f"trevsnn.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # from now on without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF, *_SUBMODULES})


register_post_import_hook(lambda _: import_module("trevsnn.zoo.timm_models"), "timm.models")
