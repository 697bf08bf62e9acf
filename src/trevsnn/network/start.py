"""The values that a network's parameters begin with."""

from __future__ import annotations

from timm.layers import ScaledStdConv2d
from torch import nn

from trevsnn.network.blocks import Level, LevelStep

PUBLISHED_STD = 0.02


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
