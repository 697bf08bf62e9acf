"""The mixing of training batches that a config asks for."""

from __future__ import annotations

from trevsnn.data.config import DataConfig
from trevsnn.data.events.mixing import EventMix
from trevsnn.data.pictures.transforms import BatchMixup


def batch_mix(config: DataConfig, classes: int, label_smoothing: float, seed: int) -> BatchMixup | EventMix | None:
    """What mixes a batch (inputs, labels) by a key into (inputs, target probabilities); None where nothing is mixed.

    Args:
        config: data.* of the run.
        classes: K.
        label_smoothing: of the mixed targets.
        seed: of the run.
    """
    if not config.mixes:
        return None
    if config.event_mix > 0:
        return EventMix(config.event_mix, classes, label_smoothing, seed)
    return BatchMixup(config, classes, label_smoothing, seed)
