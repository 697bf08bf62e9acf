"""Firing rates: which share of a network's neurons spike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trevsnn.network.blocks import Expand
from trevsnn.reversible.precision import widest


class FiringRates(NamedTuple):
    """Shares of spikes in [0, 1], float64 (float32 on MPS), over a batch, all channels and pixels.

    Attributes:
        states_LT: of s(c[l,t]), by level and timestep.
        hidden_LTN: of the hidden neurons s(PW1(DW1(s(v)))), by level, timestep and block of F[l,t] (N = 2).
    """

    states_LT: Tensor
    hidden_LTN: Tensor

    def by_level(self) -> list[list[float]]:
        """For each level its state's rate and those of its two blocks, means over the timesteps."""
        return torch.cat([self.states_LT[..., None], self.hidden_LTN], dim=2).mean(1).tolist()


def share(spikes: Tensor) -> Tensor:
    """Of spikes among neurons, a scalar, float64 (float32 on MPS)."""
    return spikes.mean(dtype=widest(spikes.device))


@contextmanager
def counting_hidden_spikes(levels: nn.ModuleList) -> Iterator[list[list[list[SpikeCounter]]]]:
    """Count the hidden neurons' spikes, by level, timestep and block, while it is entered."""
    counts_LTN = [
        [[SpikeCounter(expand) for expand in (step.expand1, step.expand2)] for step in level.steps]  # type: ignore[union-attr]
        for level in levels
    ]
    try:
        yield counts_LTN
    finally:
        for count in (count for level in counts_LTN for blocks in level for count in blocks):
            count.handle.remove()


class SpikeCounter:
    """Adds up the spikes of one block's hidden neurons, which come in slices of the batch."""

    def __init__(self, expand: Expand) -> None:
        self.spikes: Tensor | int = 0
        self.neurons = 0
        self.handle = expand.register_forward_hook(self._add)

    def _add(self, module: nn.Module, inputs: object, spikes: Tensor) -> None:
        self.spikes = self.spikes + spikes.sum(dtype=widest(spikes.device))
        self.neurons += spikes.numel()

    def rate(self) -> Tensor:
        """Share of spikes, a scalar, once there were any maps."""
        assert isinstance(self.spikes, Tensor)
        return self.spikes / self.neurons
