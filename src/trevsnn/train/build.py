"""The network of a training, as its config has it."""

from __future__ import annotations

from collections.abc import Callable

from lightning_fabric import Fabric

from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.model import TRevSNN
from trevsnn.network.norm import share_statistics
from trevsnn.network.slicing import fast_format
from trevsnn.network.start import published_start
from trevsnn.run.config import RunConfig

#: From the config of a network to the network, in float32 on the CPU.
Build = Callable[[TRevSNNConfig], TRevSNN]


def build_network(config: RunConfig, build: Build, fabric: Fabric) -> TRevSNN:
    """The network with its start, in the layout that the device is fastest in, parts that are not trained without gradients.

    Args:
        config: of the run.
        build: makes the network from ``config.model``.
        fabric: the run's processes.
    """
    model = build(config.model)
    if config.start == "published":
        published_start(model)
    leave_untrained(model, config)
    model = model.to(memory_format=fast_format(fabric.device))  # type: ignore[call-overload]
    if config.sync_batchnorm and fabric.world_size > 1:
        share_statistics(model)
    return model


def leave_untrained(model: TRevSNN, config: RunConfig) -> None:
    """Take the gradients from what a run does not train: frozen levels, and heads that its loss does not read."""
    model.freeze(config.freeze)
    if config.loss == "temporal":  # which reads the last head alone
        model.heads[:-1].requires_grad_(False)
