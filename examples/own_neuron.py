"""Neurons of one's own: a threshold and a window that fit in 2 bits, and a surrogate that does not.

    python examples/own_neuron.py

``exact`` keeps of every neuron and timestep what its surrogate can tell apart. A rectangular one tells apart whether the
potential lies in its window, whatever threshold, window and height are: 2 bits, with whether it fires. An arctan has another
value at every potential, so the potential itself is kept. The gradients are those of plain backpropagation for both.
"""

from __future__ import annotations

import torch
from torch import nn

from trevsnn.neurons import LIF, Momentary, Spike, SpikingNetwork, SurrogateSpike, atan

TIMESTEPS = 16
NEURONS = {
    "a window from 0.2 to 1.4 about 0.8": Spike(threshold=0.8, low=0.2, high=1.4, height=0.5),
    "an arctan about 0.8": SurrogateSpike(0.8, atan(alpha=2.0)),
}


def build(neuron: Spike | SurrogateSpike) -> SpikingNetwork:
    """Two layers of 256 neurons and 10 outputs."""
    torch.manual_seed(0)
    net = SpikingNetwork(TIMESTEPS)
    one = net.add(LIF(nn.Linear(64, 256), tau=3.0, spike=neuron))
    two = net.add(LIF(nn.Linear(256, 256), tau=3.0, spike=neuron), one)
    net.add(Momentary(nn.Linear(256, 10)), two)
    return net.double()


def main() -> None:
    """Compare the gradients of both modes for each neuron, and say what exact keeps."""
    x = 3 * torch.rand(32, 64, dtype=torch.float64)
    for name, neuron in NEURONS.items():
        net, gradients = build(neuron), {}
        for net.backprop in ("autograd", "exact"):
            loss = net(x).square().sum()
            gradients[net.backprop] = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*net.parameters()])])
        difference = (gradients["exact"] - gradients["autograd"]).norm() / gradients["autograd"].norm()
        bits = neuron.bits(x.dtype)
        print(f"{name}: {bits} bits for each neuron and timestep; gradients differ by {difference:.0e} relative")


if __name__ == "__main__":
    main()
