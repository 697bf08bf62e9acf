"""The spiking block on a CUDA device, in kernels that read and write each map once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trevsnn.network.blocks import Expand, PointwiseDepthwise
from trevsnn.network.keep import PartName
from trevsnn.network.kernels.depthwise import Depthwise
from trevsnn.network.kernels.hidden import HiddenMap, is_narrow
from trevsnn.network.lean.block import KeptMaps, LeanBlock
from trevsnn.network.lean.conv import LeanConv
from trevsnn.network.spike import SPIKE
from trevsnn.neurons import PackedState
from trevsnn.reversible.memory_owner import hand_over

_NEURON = SPIKE.threshold, SPIKE.low, SPIKE.high


@dataclass
class KernelTrace:
    """What the backward pass of a block needs of its forward pass on one slice.

    Attributes:
        potential: v, (b, C, H, W).
        expanded: u = DW1(s(v)), (b, C, H, W).
        projected: p = PW2(s(PW1(u))), (b, C, H, W).
        hidden: the code of PW1(u), (b, 4C, H, W), where it was written at all.
    """

    potential: Tensor
    expanded: Tensor
    projected: Tensor
    hidden: PackedState | None


class KernelBlock(LeanBlock):
    """What :class:`trevsnn.network.lean.block.LeanBlock` computes, with its arguments and by its equations.

    Of a narrow block (:func:`is_narrow`) the hidden map is never in memory. Sums are added up in another order than in
    the plain operations, and those of weights in float32, so that results differ by rounding; both passes of this class
    see the same spikes.
    """

    kernels = True

    def __init__(
        self, expand: Expand, project: PointwiseDepthwise, gamma: nn.Parameter | None, dtype: torch.dtype, pixels: int
    ) -> None:
        super().__init__(expand, project, gamma, dtype, pixels)
        self._first, self._last = (
            Depthwise(conv.unrounded, conv.conv.bias, dtype, *_NEURON) for conv in (self.dw1, self.dw2)
        )
        narrow = is_narrow(expand.dw1.in_channels, expand.dw1.weight.device)
        self._middle = _Narrow(self.pw1, self.pw2) if narrow else _Wide(self.pw1, self.pw2)

    def forward(self, potential: Tensor) -> Tensor:
        """(b, C, H, W) -> (b, C, H, W), and no trace."""
        potential = potential.contiguous(memory_format=torch.channels_last)
        return self._last.added(potential, self._middle(self._first.of_spikes(potential)), self.gamma)

    def forward_traced(  # type: ignore[override]
        self, potential: Tensor, *, value: bool = True, at_once: bool = False
    ) -> tuple[Tensor | None, KernelTrace]:
        """The same with a trace; without ``value``, only the trace."""
        potential = potential.contiguous(memory_format=torch.channels_last)
        expanded = self._first.of_spikes(potential)
        projected, hidden = self._middle.traced(expanded)
        trace = KernelTrace(potential, expanded, projected, hidden)
        return self._last.added(potential, projected, self.gamma) if value else None, trace

    def forward_kept(self, potential: Tensor, parts: Collection[PartName]) -> tuple[Tensor, KeptMaps]:
        """The value, and what :meth:`trace_again` can do with of "codes", which only wide blocks have, and "projected"."""
        value, trace = self.forward_traced(potential)
        assert value is not None
        hidden = trace.hidden if "codes" in parts else None
        projected = trace.projected if "projected" in parts else None
        for kept in (projected, None if hidden is None else hidden.bits):
            if kept is not None:
                hand_over(kept, "kept")
        return value, KeptMaps(hidden, projected)

    def trace_again(  # type: ignore[override]
        self, potential: Tensor, kept: KeptMaps, *, value: bool = True, at_once: bool = False
    ) -> tuple[Tensor | None, KernelTrace]:
        """:meth:`forward_traced` on the slice of which maps were kept, to the same bits."""
        hidden, projected = kept
        if isinstance(self._middle, _Wide):
            if hidden is None:  # nor is PW2's output kept, which spares less for its bytes
                return self.forward_traced(potential, value=value)
            if projected is None:
                projected = self.pw2.product(hidden.spikes(self.dtype))
        elif projected is None:
            return self.forward_traced(potential, value=value)
        potential = potential.contiguous(memory_format=torch.channels_last)
        trace = KernelTrace(potential, self._first.of_spikes(potential), projected, hidden)
        return self._last.added(potential, projected, self.gamma) if value else None, trace

    def backward(self, grad: Tensor, trace: KernelTrace) -> Tensor:  # type: ignore[override]
        """From dL/dout to dL/dv of one slice, both (b, C, H, W) of the states' dtype."""
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_projected, of_weight, of_bias, of_bias2 = self._last.backward(grad, trace.projected, gamma=self.gamma)
        self.dw2.add(of_weight[:, None], of_bias)
        grad_expanded = self._middle.backward(trace.expanded, trace.hidden, grad_projected, of_bias2)
        grad_potential, of_weight, of_bias, _ = self._first.backward(grad_expanded, trace.potential, outer=grad)
        self.dw1.add(of_weight[:, None], of_bias)
        return grad_potential

    def release(self) -> None:
        """Nothing: the weights are small beside what is saved."""


class _Narrow:
    """``p = PW2(s(PW1(u)))`` whose hidden map stays in registers."""

    def __init__(self, pw1: LeanConv, pw2: LeanConv) -> None:
        self.pw1, self.pw2 = pw1, pw2
        self.map = HiddenMap(pw1.weight, pw1.bias, pw2.weight, pw2.bias, *_NEURON)

    def __call__(self, u: Tensor) -> Tensor:
        return self.map(u)

    def traced(self, u: Tensor) -> tuple[Tensor, None]:
        return self.map(u), None

    def backward(self, u: Tensor, _: PackedState | None, grad: Tensor, of_bias2: Tensor | None) -> Tensor:
        of_weight1, of_bias1, of_weight2 = self.map.backward_weights(u, grad)
        self.pw1.add(of_weight1[:, :, None, None], of_bias1)
        self.pw2.add(of_weight2[:, :, None, None], of_bias2)
        return self.map.backward_input(u, grad)


class _Wide:
    """The same by the library's products, which are as fast for many channels, with the hidden map's code kept."""

    def __init__(self, pw1: LeanConv, pw2: LeanConv) -> None:
        self.pw1, self.pw2 = pw1, pw2

    def __call__(self, u: Tensor) -> Tensor:
        return self.pw2.product(SPIKE.fire_(self.pw1.product(u)))

    def traced(self, u: Tensor) -> tuple[Tensor, PackedState]:
        hidden = self.pw1.product(u)
        code = SPIKE.code(hidden)
        return self.pw2.product(SPIKE.fire_(hidden)), code

    def backward(self, u: Tensor, hidden: PackedState | None, grad: Tensor, of_bias2: Tensor | None) -> Tensor:
        assert hidden is not None
        grad_hidden = hidden.pull_back(self.pw2.backward(grad, hidden.spikes(u.dtype)))
        return self.pw1.backward(grad_hidden, u)


def fits(expand: Expand, project: PointwiseDepthwise) -> bool:
    """Whether :class:`KernelBlock` computes a block that LeanBlock does: of the convolutions of the network's own block,
    depthwise ones of odd size and pointwise ones."""
    return all(_is_depthwise(conv) for conv in (expand.dw1, project.dw2)) and all(
        conv.kernel_size == (1, 1) and conv.groups == 1 for conv in (expand.pw1, project.pw2)
    )


def _is_depthwise(conv: nn.Conv2d) -> bool:
    rows, columns = conv.kernel_size
    per_channel = conv.groups == conv.in_channels == conv.out_channels
    return per_channel and rows == columns and rows % 2 == 1 and conv.dilation == (1, 1)
