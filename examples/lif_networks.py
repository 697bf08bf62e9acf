"""Networks of leaky integrate-and-fire neurons: a VGG, SEW-ResNet-18 and Spikformer, trained exactly at 2 bits per spike.

    python examples/lif_networks.py                      # a few steps of each on handwritten digits
    python examples/lif_networks.py --timesteps 16

Each function builds its network level by level; a skip connection is a level that sees several others. The first
convolution of a picture is the same at all timesteps, so it is computed once, as the encoder.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trevsnn.measure.memory import footprint
from trevsnn.neurons import LIF, Momentary, Spike, SpikingNetwork, Summed

#: Makes the neurons of a level from the layer before them, such as LIF or functools.partial(LIF, tau=4.0).
Neuron = Callable[..., LIF]

SIZE = 16  # of the pictures in main

ZERO_OR_ONE = Spike(0.5, 0.0, 1.0)  # shows zeros and ones as they are


def conv_bn(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution and the statistics of one timestep's batch."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


def vgg(
    widths: Sequence[int] = (16, 32, 64),
    in_channels: int = 1,
    classes: int = 10,
    timesteps: int = 4,
    neuron: Neuron = LIF,
) -> SpikingNetwork:
    """Two convolutions of each width, with pooling in between."""
    net = SpikingNetwork(timesteps, encoder=conv_bn(in_channels, widths[0]))
    x = net.add(neuron(nn.Identity()))
    x = net.add(neuron(conv_bn(widths[0], widths[0])), x)
    for narrow, wide in itertools.pairwise(widths):
        x = net.add(neuron(nn.Sequential(nn.MaxPool2d(2), conv_bn(narrow, wide))), x)
        x = net.add(neuron(conv_bn(wide, wide)), x)
    net.add(Momentary(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))), x)
    return net


def sew_resnet18(
    in_channels: int = 3, classes: int = 1000, timesteps: int = 4, width: int = 64, neuron: Neuron = LIF
) -> SpikingNetwork:
    """Spike-element-wise ResNet-18 with addition (Fang et al., "Deep Residual Learning in Spiking Neural Networks", NeurIPS
    2021)."""
    net = SpikingNetwork(timesteps, encoder=conv_bn(in_channels, width, 7, 2))
    stem = net.add(neuron(nn.Identity()))
    x = [net.add(Momentary(nn.MaxPool2d(3, 2, 1), ZERO_OR_ONE), stem)]  # levels whose spikes add up to a block's input
    channels = width
    for out in (width, 2 * width, 4 * width, 8 * width):
        for _ in range(2):
            stride = 1 if channels == out else 2
            inner = net.add(neuron(Summed(conv_bn(channels, out, 3, stride))), *x)
            outer = net.add(neuron(conv_bn(out, out)), inner)
            if stride == 2:
                x = [net.add(neuron(Summed(conv_bn(channels, out, 1, stride))), *x)]
            x.append(outer)
            channels = out
    net.add(Momentary(Summed(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))), *x)
    return net


class Attention(nn.Module):
    """Self-attention of spikes without a softmax, ``v k^T q / 8`` in each head, from q, k and v one after another (B, 3C, H, W)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, qkv: Tensor) -> Tensor:
        """(B, C, H, W)."""
        q, k, v = qkv.flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)  # each (B, heads, C / heads, H W)
        return (v @ k.mT @ q * 0.125).flatten(1, 2).unflatten(2, qkv.shape[2:])


def spikformer(
    in_channels: int = 3, classes: int = 1000, timesteps: int = 4, width: int = 256, depth: int = 4, heads: int = 8,
    pools: Sequence[bool] = (True, True, True, True), neuron: Neuron = LIF,
) -> SpikingNetwork:  # fmt: skip
    """Spikformer (Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023).

    The default is Spikformer-Ti. ``pools``: after which of the four convolutions of the patch embedding to pool.
    """

    def embed(narrow: int, wide: int, *, pool: bool) -> nn.Module:
        return nn.Sequential(conv_bn(narrow, wide), nn.MaxPool2d(3, 2, 1)) if pool else conv_bn(narrow, wide)

    widths = (width // 8, width // 4, width // 2, width)
    net = SpikingNetwork(timesteps, encoder=embed(in_channels, widths[0], pool=pools[0]))
    patches = net.add(neuron(nn.Identity()))
    for narrow, wide, pool in zip(widths, widths[1:], pools[1:], strict=False):
        patches = net.add(neuron(embed(narrow, wide, pool=pool)), patches)
    x = [patches, net.add(neuron(conv_bn(width, width)), patches)]  # levels whose spikes add up to a block's input
    for _ in range(depth):
        qkv = net.add(neuron(Summed(conv_bn(width, 3 * width, 1))), *x)
        attention = net.add(neuron(Attention(heads), spike=Spike(0.5, 0.0, 1.0)), qkv)
        x.append(net.add(neuron(conv_bn(width, width, 1)), attention))
        hidden = net.add(neuron(Summed(conv_bn(width, 4 * width, 1))), *x)
        x.append(net.add(neuron(conv_bn(4 * width, width, 1)), hidden))
    net.add(Momentary(Summed(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))), *x)
    return net


def main() -> None:
    """Train each network for a few steps, and count what a step keeps in memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    pictures, labels = load_digits(return_X_y=True)
    x, target = torch.tensor(pictures / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels)
    x = nn.functional.interpolate(x, size=(SIZE, SIZE))
    few, classes = x[:16], target[:16]
    shared = {"in_channels": 1, "classes": 10, "timesteps": options.timesteps}
    networks = {
        "VGG": vgg(**shared),
        "SEW-ResNet-18": sew_resnet18(**shared, width=16),
        "Spikformer": spikformer(**shared, width=64, depth=2, heads=4, pools=(False, False, True, True)),
    }
    for name, net in networks.items():
        megabytes = {}
        for net.backprop in ("autograd", "exact"):
            counted = footprint(net, [few, classes], lambda: cross_entropy(net(few).mean(0), classes))  # noqa: B023
            megabytes[net.backprop] = sum(counted.peak.values()) / len(few) / 1e6
            net.zero_grad()
        optimizer, losses = torch.optim.AdamW(net.parameters(), lr=3e-3), []
        for step in range(options.steps):
            batch = slice(64 * step, 64 * step + 64)
            loss = cross_entropy(net(x[batch]).mean(0), target[batch])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        print(
            f"{name}, T = {options.timesteps}: {megabytes['exact']:.2f} MB for a picture of {SIZE} x {SIZE} in exact, "
            f"{megabytes['autograd']:.2f} in autograd; loss from {losses[0]:.2f} to {losses[-1]:.2f}"
        )


if __name__ == "__main__":
    main()
