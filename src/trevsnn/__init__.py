"""Temporal reversible spiking neural networks: training memory independent of T, inference cost independent of T."""

from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.losses import deep_supervision_loss, temporal_loss
from trevsnn.network.model import TRevSNN
from trevsnn.reversible.inversion import ReversibilityError
from trevsnn.zoo.presets import create_model
from trevsnn.zoo.published import from_published, published_names

__version__ = "0.1.0"

__all__ = [
    "ReversibilityError",
    "TRevSNN",
    "TRevSNNConfig",
    "create_model",
    "deep_supervision_loss",
    "from_published",
    "published_names",
    "temporal_loss",
]
