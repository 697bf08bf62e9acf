"""Ordinary spiking networks: a graph of layers of neurons, all with the same timesteps, run as one recurrence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trevsnn.backprop import Backprop
from trevsnn.checks import choice
from trevsnn.neurons.lif import LIF
from trevsnn.reversible import Readout, Sees, View, run


class Momentary(nn.Module):
    """A level without memory or neurons: its state is what its layer computes at this timestep, ``c[l,t] = layer(...)``.

    For a network's last layer, and for what several levels would otherwise compute again, such as a pooled map.

    Args:
        layer: from what the level sees of those below, an argument for each.
        view: in what form the state is kept and seen; None as it is, in float. Where the layer gives zeros and ones,
            ``Spike(0.5, 0, 1)`` shows just these in 2 bits, with a derivative of 1.
    """

    def __init__(self, layer: nn.Module, view: View | None = None) -> None:
        super().__init__()
        self.layer, self.view = layer, view

    def alpha(self) -> float:
        """0: nothing stays of the timestep before."""
        return 0.0

    def forward(self, *below: Tensor) -> Tensor:
        """F[l,t]."""
        return self.layer(*below)


class Summed(nn.Sequential):
    """Layers one after another, the first of which is given the sum of all arguments: where skip connections meet."""

    def forward(self, *inputs: Tensor) -> Tensor:  # type: ignore[override]
        """The last layer's value."""
        first, *others = inputs
        return super().forward(sum(others, first))


class SpikingNetwork(nn.Module):
    """Layers of neurons, each of which sees spikes of layers below it at the same timestep, trained exactly. At a fixed leak
    and with a rectangular surrogate that keeps 2 bits for each neuron and timestep::

        import torch
        from torch import nn
        from trevsnn.neurons import LIF, Momentary, SpikingNetwork, Summed

        net = SpikingNetwork(timesteps=8)
        one = net.add(LIF(nn.Linear(64, 100)))                 # sees the input
        two = net.add(LIF(nn.Linear(100, 100)), one)
        net.add(Momentary(Summed(nn.Linear(100, 10))), one, two)
        logits_TBK = net(torch.rand(32, 64))                   # (8, 32, 10)

    Batch normalisation takes its statistics from one timestep's batch, as SpikingJelly does in step mode "s", not from
    all timesteps together as in "m", and its running ones take a step at every timestep.

    Args:
        timesteps: T, for one picture that is shown at all of them; None for frames, of which the input has T.
        encoder: what lies before the recurrence. What all timesteps have in common, such as a first convolution and
            normalisation of a picture, is here computed once, and in ``exact`` once more in the backward pass; its running
            statistics then take one step.
        backprop: "exact", or "autograd", which keeps the plain graph of all timesteps.

        verify: have what layers compute in the backward pass compared with what they did in the forward pass
            (:class:`trevsnn.reversible.Replay`).

    Attributes:
        backprop: as given; may be set at any time.
        verify: likewise.
        levels: the modules that were added.
        sees: what each of them sees.
    """

    def __init__(
        self, timesteps: int | None = None, encoder: nn.Module | None = None, *, backprop: Backprop = "exact",
        verify: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        choice("backprop", backprop, ("exact", "autograd"))
        self.timesteps = timesteps
        self.backprop: Backprop = backprop
        self.verify = verify
        self.encoder = encoder
        self.levels = nn.ModuleList()
        self.sees: list[Sees] = []

    def add(self, level: LIF | Momentary, *below: int) -> int:
        """Add a level on top.

        Args:
            level: given, in this order, what is seen of the levels below.
            below: their numbers, -1 for the input, or what the encoder makes of it; nothing for the input alone.

        Returns:
            Its number.

        Raises:
            TypeError: it is no level.
            ValueError: one of those is not below it.
        """
        if not isinstance(level, LIF | Momentary):
            raise TypeError(
                f"a level is a {type(level).__name__}; give LIF(layer) or IF(layer), or Momentary(layer) without neurons."
            )
        number = len(self.levels)
        if not all(-1 <= i < number for i in below):
            raise ValueError(f"level {number} sees levels below it, from -1, the input, to {number - 1}; got {below}.")
        self.levels.append(level)
        self.sees.append(Sees(below or (-1,), own=isinstance(level, LIF)))
        return number

    def forward(self, x: Tensor) -> Tensor:
        """What is seen of the top level after each timestep: its spikes, or the state of a level without neurons.

        Args:
            x: one input (B, ...) for all timesteps, or without ``timesteps`` frames (T, B, ...), floating point. (A
                :class:`trevsnn.TRevSNN` takes frames as (B, T, ...).)

        Returns:
            (T, B, ...).

        Raises:
            ValueError: an unknown ``backprop``, or "reversible", which cannot go back through a reset.
        """
        return self.read(x, -1)[0]

    def read(self, x: Tensor, *levels: int | tuple[int, Callable[[Tensor], Tensor]]) -> list[Tensor]:
        """Run all timesteps, and give what is seen of some levels, for a loss or to count spikes::

            logits_TBK, rates_T = net.read(torch.rand(32, 64), -1, (one, torch.mean))

        Args:
            x: one input (B, ...), or without ``timesteps`` frames (T, B, ...), floating point.
            levels: their numbers, -1 for the top level; or a number and a function of what is seen of the level after each
                timestep (B, ...), such as its mean, so that spikes themselves need not be kept.

        Returns:
            For each level its spikes, or the state of a level without neurons, (T, B, ...), or what the function makes of
            them, (T, ...).

        Raises:
            ValueError: there is no such level; an unknown ``backprop``, or "reversible", which cannot go back through a
                reset.
        """
        pairs = [(level, _as_it_is) if isinstance(level, int) else level for level in levels]
        for level, _ in pairs:
            if not -len(self.levels) <= level < len(self.levels):
                raise ValueError(f"there is no level {level}: the network has {len(self.levels)}.")
        options: dict[str, Any] = {"backprop": self.backprop, "verify": self.verify}
        if self.encoder is not None:  # a recurrence of one level and one timestep, so that its inner maps are not kept
            (x,), _ = run([[self.encoder]], [None], [x], sees=[Sees((-1,))], **options)
        inputs = list(x) if self.timesteps is None else [x] * self.timesteps
        row: list[LIF | Momentary] = list(self.levels)  # type: ignore[arg-type]
        steps = range(len(inputs))
        _, values = run(
            [row] * len(inputs), [[level.alpha() for level in row]] * len(inputs), inputs,
            sees=self.sees, views=[level.view for level in row], once=True,
            readouts=[Readout(t, function, level, seen=True) for level, function in pairs for t in steps], **options,
        )  # fmt: skip
        return [torch.stack(values[i * len(inputs) : (i + 1) * len(inputs)]) for i in range(len(levels))]


def _as_it_is(seen: Tensor) -> Tensor:
    return seen
