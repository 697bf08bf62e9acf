"""Leaky integrate-and-fire neurons as a level of the recurrence."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trevsnn.neurons.spike import Spike
from trevsnn.neurons.surrogate import SurrogateSpike

#: The threshold and window of SpikingJelly's neurons with its ``Rect`` surrogate, but for a window that is closed.
ABOUT_ONE = Spike(1.0, 0.5, 1.5)


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons with a soft reset and the layer before them: F[l,t] of a level, and its alpha.

    A neuron with the input current x[t], the potential h[t], and the leak a = 1 - 1 / tau, fires where h[t] reaches its
    threshold, which is then taken off::

        h[t] = a (h[t-1] - threshold s(h[t-1])) + x[t]           without decay_input
        h[t] = a (h[t-1] - threshold s(h[t-1])) + x[t] / tau     with it

    These are SpikingJelly's ``LIFNode(v_reset=None)`` and, where the leak is learned, ``ParametricLIFNode``. As a
    recurrence c = h, alpha = a, the view is s, and the level sees the spikes of levels below and its own::

        F[l,t](s(c[i,t]), ..., s(c[l,t-1])) = layer(s(c[i,t]), ...) [/ tau] - a threshold s(c[l,t-1])

    A fixed leak has no gradient, so that no float state is wanted: with a :class:`Spike`, 2 bits for each neuron and
    timestep are all that is kept. A learned one needs the float states, which are inverted, from one that is kept now and
    then (:mod:`trevsnn.reversible.inversion`).

    Args:
        layer: from what the level sees of those below, an argument for each, to the current x[t]. Batch statistics in it
            are those of one timestep.
        tau: the time constant in timesteps, at least 1; infinite for a neuron without leak (:class:`IF`).
        spike: a :class:`Spike` or a :class:`SurrogateSpike`, whose threshold the reset takes off; the default is
            :data:`ABOUT_ONE`. A view of another kind goes into ``Momentary(layer, view)`` or ``trevsnn.reversible.run``.
        decay_input: divide the current by tau.
        detach_reset: no gradient through the reset.
        learn_leak: one number for the level is learned, ``1 / tau = sigmoid(w)``, beginning with tau.

    Raises:
        TypeError: the layer is no module, tau no number, or the neuron another than these two.
        ValueError: tau below 1, or infinite where the current is divided by it, or neither finite nor above 1 where the
            leak is learned.

    Source of the learned leak: Fang et al., "Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking
    Neural Networks", ICCV 2021.
    """

    def __init__(
        self, layer: nn.Module, tau: float = 2.0, spike: Spike | SurrogateSpike = ABOUT_ONE, *,
        decay_input: bool = True, detach_reset: bool = False, learn_leak: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if not isinstance(layer, nn.Module):
            raise TypeError(
                f"LIF: layer is a {type(layer).__name__}; give a module, from what the level sees to the current."
            )
        if not isinstance(tau, int | float):
            raise TypeError(f"LIF: tau is a {type(tau).__name__}; give a number of timesteps.")
        if not isinstance(spike, Spike | SurrogateSpike):
            raise TypeError(
                f"LIF: spike is a {type(spike).__name__}; give a Spike or a SurrogateSpike, whose threshold the reset takes off. A view "
                "of your own goes into Momentary(layer, view) or trevsnn.reversible.run(views=...)."
            )
        if not tau >= 1:
            raise ValueError(f"tau is {tau:g}; it must be at least 1.")
        if math.isinf(tau) and decay_input:
            raise ValueError("tau is infinite, so that decay_input would leave no current: set decay_input=False.")
        if learn_leak and not 1 < tau < math.inf:
            raise ValueError(f"tau is {tau:g}; a leak that is learned begins between 1 and infinity.")
        self.layer, self.spike, self.tau = layer, spike, tau
        self.decay_input, self.detach_reset = decay_input, detach_reset
        self.w = nn.Parameter(torch.tensor(-math.log(tau - 1))) if learn_leak else None

    @property
    def view(self) -> Spike | SurrogateSpike:
        """What levels see of this one."""
        return self.spike

    def inverse_tau(self) -> Tensor | float:
        """1 / tau."""
        return 1 / self.tau if self.w is None else self.w.sigmoid()

    def alpha(self) -> Tensor | float | None:
        """a = 1 - 1 / tau; None for 1."""
        return None if math.isinf(self.tau) else 1 - self.inverse_tau()

    def forward(self, *seen: Tensor | None) -> Tensor:
        """F[l,t]: the current, and what the reset took off that is left after the leak.

        Args:
            seen: what the level sees of those below, and last its own spikes of t-1, in the shape of the layer's
                output; None at t = 0.

        Returns:
            In the shape of the layer's output.
        """
        *below, own = seen
        current, rate = self.layer(*below), self.inverse_tau()
        if self.decay_input:
            current = current * rate
        if own is None:
            return current
        own = own.detach() if self.detach_reset else own
        reset = (rate - 1) * self.spike.threshold
        if isinstance(reset, Tensor):
            return current + reset * own
        return torch.add(current, own, alpha=reset)  # the same in one pass over the neurons


class IF(LIF):
    """Integrate-and-fire neurons, without a leak: ``h[t] = h[t-1] - threshold s(h[t-1]) + x[t]``; see :class:`LIF`."""

    def __init__(
        self, layer: nn.Module, spike: Spike | SurrogateSpike = ABOUT_ONE, *, detach_reset: bool = False
    ) -> None:
        super().__init__(layer, math.inf, spike, decay_input=False, detach_reset=detach_reset)
