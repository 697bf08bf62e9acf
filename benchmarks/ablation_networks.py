"""The networks that benchmarks/ablation.py compares and that no config describes: T-RevSNN with one thing changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.network.blocks import Expand, LevelStep, PointwiseDepthwise
from trevsnn.network.spike import spike
from trevsnn.network.start import ALPHA, derived_start
from trevsnn.network.transform import Transform
from trevsnn.reversible import Alpha

Build = Callable[[TRevSNNConfig], TRevSNN]


def without_upper_link(config: TRevSNNConfig) -> TRevSNN:
    """No level is given the state of one above it."""
    model = TRevSNN(config)
    for step in _steps(model):
        step.above, step.further = None, nn.ModuleList()
    return model


def fixed_alpha(config: TRevSNNConfig) -> TRevSNN:
    """Every alpha stays what it begins with."""
    model = TRevSNN(config)
    for level in model.levels:
        level.alphas.requires_grad_(False)  # type: ignore[operator]
    return model


class NothingShared(TRevSNN):
    """Nothing is shared over time: each timestep has a PW2 and DW2 of its own in the second block too."""

    def __init__(self, config: TRevSNNConfig) -> None:
        super().__init__(config)
        for level, channels in zip(self.levels, config.channels, strict=True):
            level.halves = nn.ModuleList(PointwiseDepthwise(channels, config.kernel_size) for _ in level.steps)  # type: ignore[union-attr]
            del level.shared
        derived_start(self)

    def _transforms(self) -> tuple[list[list[Transform]], list[list[Alpha] | None]]:
        levels: list[Any] = list(self.levels)
        timesteps = range(self.config.timesteps)
        return (
            [
                [
                    Transform(level.steps[t], level.halves[t], self.config.slice_bytes, f"levels.{i}.steps.{t}")
                    for i, level in enumerate(levels)
                ]
                for t in timesteps
            ],
            [None if t == 0 else [level.alpha(t) for level in levels] for t in timesteps],
        )


class ExpandOverTime(Expand):
    """Hidden neurons that carry their potential over time, as the level's last neuron does:
    ``u[t] = u[t-1] / 2 + sqrt(3 / 4) PW1(DW1(s(v)))``, and u[0] without the factor, so that its variance stays."""

    def __init__(self, channels: int, kernel_size: int, before: ExpandOverTime | None) -> None:
        super().__init__(channels, kernel_size)
        self.neighbours = {"before": before}  # in a dict, so that it is no submodule
        self.hidden: Tensor | None = None

    def forward(self, potential: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4C, H, W) spikes."""
        self.hidden, before = self.pw1(self.dw1(spike(potential))), self.neighbours["before"]
        if before is not None:
            self.hidden = before.hidden * ALPHA + self.hidden * (1 - ALPHA**2) ** 0.5
            before.hidden = None  # a step's, not the network's
        return spike(self.hidden)


def hidden_over_time(config: TRevSNNConfig) -> TRevSNN:
    """All hidden neurons have temporal dynamics, not the last one of a level alone; for ``backprop="autograd"``."""
    model = TRevSNN(config)
    for level, channels in zip(model.levels, config.channels, strict=True):
        for name in ("expand1", "expand2"):
            before: ExpandOverTime | None = None
            for step in level.steps:  # type: ignore[union-attr]
                before = ExpandOverTime(channels, config.kernel_size, before)
                setattr(step, name, before)
    derived_start(model)
    return model


def fixed_gamma(config: TRevSNNConfig) -> TRevSNN:
    """The first block has no gamma: it stays 1."""
    model = TRevSNN(config)
    for step in _steps(model):
        step.gamma.requires_grad_(False)
    return model


class TwoGammas(LevelStep):
    """F[l,t] whose second block has a gamma, too, one of each timestep."""

    gamma2: nn.Parameter

    def blocks(self, potential: Tensor, shared: PointwiseDepthwise) -> Tensor:
        """``Block2(Block1(v))``, (B, C, H, W) -> (B, C, H, W)."""
        potential = potential + self.gamma * self.project1(self.expand1(potential))
        return potential + self.gamma2 * shared(self.expand2(potential))


def second_gamma(config: TRevSNNConfig) -> TRevSNN:
    """The second block has a gamma like the first one's."""
    model = TRevSNN(config)
    for step in _steps(model):
        step.__class__ = TwoGammas
        step.gamma2 = nn.Parameter(torch.ones_like(step.gamma))
    return model


def dw2_at(std: float) -> Build:
    """DW2 begins with this standard deviation."""

    def build(config: TRevSNNConfig) -> TRevSNN:
        model = TRevSNN(config)
        for module in model.modules():
            if isinstance(module, PointwiseDepthwise):
                nn.init.normal_(module.dw2.weight, std=std)
        return model

    return build


def _steps(model: TRevSNN) -> list[LevelStep]:
    return [module for module in model.modules() if isinstance(module, LevelStep)]


#: By the name that the table has, how a network is made of its config.
CHANGES: dict[str, Build] = {
    "without the upper link": without_upper_link,
    "alpha fixed at 1/2": fixed_alpha,
    "nothing shared over time": NothingShared,
    "hidden neurons with temporal dynamics": hidden_over_time,
    "first block without gamma": fixed_gamma,
    "second block with gamma": second_gamma,
    "start: DW2 at 0.002": dw2_at(0.002),
    "start: DW2 at 0.2": dw2_at(0.2),
}
