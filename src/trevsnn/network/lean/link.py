"""What a level is given, from the input or from a neighbour, forward and backward without autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trevsnn.network.blocks import Link, fast_layout
from trevsnn.network.lean.conv import LeanConv
from trevsnn.network.norm import BatchNorm, normalise, normalise_backward
from trevsnn.network.slicing import gather
from trevsnn.network.spike import PackedState, spikes_of, window_of
from trevsnn.reversible.two_pass import Gradients


class LeanInput:
    """What comes from the network's input: itself, or a projection of it. No slice depends on another."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self.conv = LeanConv(module, dtype) if isinstance(module, nn.Conv2d) else None
        self.dtype = dtype

    def prepare(self, below: Any, rows: list[slice], statistics: Any = None) -> None:
        """Take the input x, float."""
        self.x: Tensor = below

    @property
    def statistics(self) -> None:
        """There are none."""

    def forward(self, rows: slice) -> Tensor:
        """A slice of the fused potential."""
        x = fast_layout(self.x[rows])
        return x if self.conv is None else self.conv(x.to(self.dtype))

    def backward(self, rows: slice, grad: Tensor, adjoint: Tensor | None) -> None:
        """Add the slice's gradient to the input's adjoint, if it is wanted."""
        if self.conv is not None:
            x = fast_layout(self.x[rows]).to(self.dtype)
            grad = self.conv.backward(grad.to(self.dtype), x, to_input=adjoint is not None)
        if adjoint is not None:
            adjoint[rows] += grad

    def finish(self, rows: list[slice], adjoint: Tensor | None) -> None:
        """Nothing is left to do after the last slice."""

    def gradients(self) -> Gradients:
        return [] if self.conv is None else self.conv.gradients()


class LeanLink:
    """``BN(conv(s(c)))``: convolutions and what lies behind them in slices, batch statistics over the whole batch.

    The statistics of the first pass serve the second, so that it gives the same bits without another reduction.
    """

    def __init__(self, link: Link, dtype: torch.dtype) -> None:
        self.conv, self.bn, self.dtype = LeanConv(link.conv, dtype), link.bn, dtype
        self.grad: Tensor | None = None
        self.bn_grads: tuple[Tensor, Tensor] | None = None

    def prepare(self, seen: Any, rows: list[slice], statistics: tuple[Tensor, Tensor] | None = None) -> None:
        """Convolve the spikes of a state, or of its codes; count them into the running statistics in the first pass."""
        self.seen: Tensor | PackedState = seen
        self.maps = gather(((r, self.conv(spikes_of(seen[r], self.dtype))) for r in rows), seen.shape[0])
        assert isinstance(self.bn, BatchNorm)
        self.statistics = self.bn.statistics(self.maps) if statistics is None else statistics

    def forward(self, rows: slice) -> Tensor:
        """A slice of the normalised map."""
        return normalise(self.maps[rows], *self.statistics, self.bn.weight, self.bn.bias, self.bn.eps)

    def backward(self, rows: slice, grad: Tensor, adjoint: Tensor | None) -> None:
        """Take a slice's gradient; it is led on by :meth:`finish`."""
        if self.grad is None:
            self.grad = torch.empty_like(self.maps)
        self.grad[rows] = grad

    def finish(self, rows: list[slice], adjoint: Tensor | None) -> None:
        """Through the normalisation of the whole batch, and in slices on to the state's adjoint."""
        assert self.grad is not None
        assert isinstance(self.bn, BatchNorm)
        grad_maps, *grads = normalise_backward(
            self.grad, self.maps, *self.statistics, self.bn.weight, self.bn.eps,
            training=self.bn.training, shared=self.bn.shared,
        )  # fmt: skip
        self.bn_grads = grads[0], grads[1]
        del self.grad, self.maps
        for r in reversed(rows):
            seen = self.seen[r]
            grad_spikes = self.conv.backward(grad_maps[r], spikes_of(seen, self.dtype))
            if adjoint is not None:
                adjoint[r] += grad_spikes.mul_(window_of(seen, self.dtype))

    def gradients(self) -> Gradients:
        """The link's parameters and their gradients."""
        assert self.bn_grads is not None
        own = zip((self.bn.weight, self.bn.bias), self.bn_grads, strict=True)
        return self.conv.gradients() + [(p, grad) for p, grad in own if p.requires_grad]
