"""What a level is given, from the input or from a neighbour, forward and backward without autograd."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trevsnn.network.blocks import Link
from trevsnn.network.lean.conv import LeanConv
from trevsnn.network.norm import BatchNorm, Statistics, normalise, normalise_backward
from trevsnn.network.slicing import fast_layout, gather
from trevsnn.network.spike import pull_back, spikes_of
from trevsnn.neurons import PackedState
from trevsnn.reversible import Code, Gradients, Neighbour


class LeanInput:
    """What comes from the network's input: itself, or a projection of it. No slice depends on another."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self.conv = LeanConv(module, dtype) if isinstance(module, nn.Conv2d) else None
        self.dtype = dtype

    def prepare(self, x: Tensor | Code, rows: list[slice], statistics: Statistics | None = None) -> tuple[Tensor, None]:
        """The input itself, which has no batch statistics."""
        assert isinstance(x, Tensor)
        return x, None

    def forward(self, x: Tensor, statistics: Statistics | None) -> Tensor:
        """A slice of the input, (b, C', H', W'), to a slice of the potential, (b, C, H, W)."""
        x = fast_layout(x)
        return x if self.conv is None else self.conv(x.to(self.dtype))

    def backward(self, grad: Tensor, x: Tensor, adjoint: Tensor | None) -> None:
        """``dL/dx += (dconv/dx)^T grad`` of a slice, in place, if it is wanted."""
        if self.conv is not None:
            x = fast_layout(x).to(self.dtype)
            grad = self.conv.backward(grad.to(self.dtype), x, to_input=adjoint is not None)
        if adjoint is not None:
            adjoint += grad

    def gradients(self) -> Gradients:
        """The projection's parameters and their gradients, once the last slice is through."""
        return [] if self.conv is None else self.conv.gradients()


class LeanLink:
    """``BN(conv(s(c)))``: the convolution in slices, batch statistics over the whole batch.

    The statistics of the first pass serve the second, so that it gives the same bits without another reduction.
    """

    def __init__(self, link: Link, dtype: torch.dtype) -> None:
        assert isinstance(link.bn, BatchNorm)
        self.conv, self.bn, self.dtype = LeanConv(link.conv, dtype), link.bn, dtype

    def prepare(
        self, seen: Tensor | Code, rows: list[slice], statistics: Statistics | None = None
    ) -> tuple[Tensor, Statistics]:
        """``conv(s(c))`` of the whole batch, and what to normalise it by; the first pass, which has no statistics yet,
        updates the running ones."""
        maps = gather(((r, self.conv(spikes_of(_state(seen[r]), self.dtype))) for r in rows), seen.shape[0])
        return maps, self.bn.statistics(maps) if statistics is None else statistics

    def forward(self, maps: Tensor, statistics: Statistics | None) -> Tensor:
        """A slice of the convolved maps to a slice of what the level is given, of the same shape."""
        assert statistics is not None
        return normalise(maps, statistics, self.bn.weight, self.bn.bias, self.bn.eps)

    def norm_backward(self, grad: Tensor, maps: Tensor, statistics: Statistics) -> tuple[Tensor, Gradients]:
        """``(dBN/dmaps)^T grad`` of the whole batch, and the gradients of BN's parameters."""
        grad_maps, *grads = normalise_backward(grad, maps, statistics, self.bn.weight, self.bn.eps)
        own = zip((self.bn.weight, self.bn.bias), grads, strict=True)
        return grad_maps, [(p, g) for p, g in own if p is not None and p.requires_grad]

    def conv_backward(self, grad: Tensor, neighbour: Neighbour, rows: list[slice]) -> Gradients:
        """``dL/dc += ds/dc * (conv^T grad)``, in place and in slices, and the gradients of the convolution's parameters."""
        for r in reversed(rows):
            seen = _state(neighbour.value[r])
            grad_spikes = self.conv.backward(grad[r], spikes_of(seen, self.dtype))
            if neighbour.adjoint is not None:
                neighbour.adjoint[r] += pull_back(seen, grad_spikes)
        return self.conv.gradients()


def _state(seen: Tensor | Code) -> Tensor | PackedState:
    """A state, or the one code of it that this network uses."""
    assert isinstance(seen, Tensor | PackedState)
    return seen
