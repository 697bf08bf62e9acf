"""The values that a network's parameters begin with."""

from __future__ import annotations

import math
from statistics import NormalDist

from timm.layers import ScaledStdConv2d
from torch import nn

from trevsnn.network.blocks import Expand, Level, LevelStep, Link, PointwiseDepthwise
from trevsnn.network.heads import AuxiliaryHead, LastHead
from trevsnn.network.spike import THRESHOLD

POTENTIAL_STD = 0.5  # of every membrane potential at the start
RATE = 1 - NormalDist(0, POTENTIAL_STD).cdf(THRESHOLD)  # of a neuron with such a potential, 0.159
ALPHA = 0.5
FROM_ABOVE = 0.1  # how much of what comes from below comes from above
DW2_STD = 0.02
HEAD_GAIN = 8.0
PUBLISHED_STD = 0.02


def derived_start(model: nn.Module) -> None:
    """Give every parameter of a T-RevSNN its initial value, in place, so that the state of every level above the lowest begins
    as N(0, sigma^2) with ``sigma = 1/2``, at every timestep, and the hidden potentials near it: lower where zeros around a
    small map take the place of spikes, and from t = 1 on, where a block sees F's input alone.

    Then the threshold lies one sigma above the mean: a neuron fires at a rate ``rho = 1 - Phi(1) = 0.159``, and the surrogate
    gradient's window [0, 1] holds ``Phi(2) - 1/2 = 0.477`` of the neurons (of unit variance 0.341). With k the depthwise
    kernel's side::

        DW1           N(0, 1 / (k^2 rho)): its output, a sum of k^2 weights of which the share rho counts, has variance 1
        PW1           gain sigma: the potential of the hidden neurons has variance sigma^2
        DW2           N(0, 0.02^2), gamma 1: a block begins near the identity, so that F[l,t] has the variance of its input
        alpha         1/2
        BN from below gain sigma at t = 0, then sigma sqrt(1 - alpha^2), so that c[l,t] = alpha c[l,t-1] + F keeps sigma^2;
                      without alphas, where variances add up, sigma / T^(1/4) at every t: c ends at sigma T^(1/4)
        BN from above a tenth of that: what it says is noise until its level has learned something
        heads         gain 8: of pooled values that differ by 0.03 to 0.15 from picture to picture, logits of 1/4 to 1
        biases        0

    A standardised convolution and one before BatchNorm compute the same whatever the scale of their weights, which are
    PyTorch's. docs/learn/start.md has the argument, and rates of fresh networks on real data. Weights are drawn from
    PyTorch's random state.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, Expand):
            side = module.dw1.kernel_size[0]
            nn.init.normal_(module.dw1.weight, std=1 / (side * math.sqrt(RATE)))
            nn.init.constant_(module.pw1.gain, POTENTIAL_STD)
        elif isinstance(module, PointwiseDepthwise):
            nn.init.trunc_normal_(module.dw2.weight, std=DW2_STD)
        elif isinstance(module, Level):
            _start_level(module)
        else:
            start_head(module)


def start_head(module: nn.Module) -> None:
    """Give a head the initial values of :func:`derived_start`, in place; any other module stays as it is."""
    if isinstance(module, AuxiliaryHead | LastHead):
        first = module.classifier if isinstance(module, AuxiliaryHead) else module.classifier1
        nn.init.constant_(first.gain, HEAD_GAIN)
        for part in module.modules():
            if isinstance(part, nn.Conv2d) and part.bias is not None:
                nn.init.zeros_(part.bias)


def _start_level(level: Level) -> None:
    for alpha in level.alphas:
        nn.init.constant_(alpha, ALPHA)
    steps: list[LevelStep] = list(level.steps)  # type: ignore[arg-type]
    for t, step in enumerate(steps):
        if not len(level.alphas):
            gain = POTENTIAL_STD / len(steps) ** 0.25
        else:
            gain = POTENTIAL_STD * (1 if t == 0 else math.sqrt(1 - ALPHA**2))
        for link in (step.below, step.above, *step.further):
            if isinstance(link, Link):
                nn.init.constant_(link.bn.weight, gain if link is step.below else FROM_ABOVE * gain)


def published_start(model: nn.Module) -> None:
    """Give every parameter of a T-RevSNN the initial value of the published code (Hu et al., ICML 2024), in place.

    Every convolution, depthwise, standardised or of a link, begins with weights of N(0, 0.02^2) and biases of 0; gains,
    gammas and the scales of BatchNorm with 1, its biases with 0, and every alpha with 0.5. Weights are drawn from
    PyTorch's random state.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=PUBLISHED_STD)  # cut at +-2, a hundred standard deviations away
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, ScaledStdConv2d):
            nn.init.ones_(module.gain)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, LevelStep):
            nn.init.ones_(module.gamma)
        elif isinstance(module, Level):
            for alpha in module.alphas:
                nn.init.constant_(alpha, 0.5)
