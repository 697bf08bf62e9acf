"""Forward and backward passes of convolutions, links and blocks without autograd, on slices of the batch.

Each class here is the twin of a module in :mod:`trevsnn.blocks`: the same operations in the same order going forward,
so the same bits; the chain rule written out going backward. They live for one pass, outside autograd.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor, nn

from trevsnn.blocks import (
    EXPANSION,
    BatchNorm,
    Expand,
    Link,
    PointwiseDepthwise,
    fast_layout,
    normalise,
    normalise_backward,
)
from trevsnn.owner import owner
from trevsnn.replay import Gradients
from trevsnn.slicing import gather
from trevsnn.spike import THRESHOLD, PackedState, pack, spikes_of, window_of


class LeanConv:
    """A convolution whose weight is made ready once for all slices, and whose gradients are summed over them.

    Args:
        conv: plain or weight-standardised.
        dtype: it computes in.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        self.conv, self.dtype = conv, dtype
        self.bias = None if conv.bias is None else conv.bias.to(dtype)
        self.weight_grad: Tensor | None = None
        self.bias_grad: Tensor | None = None
        # On a CPU, matrix products of 16-bit numbers are a quarter faster than the same work as a convolution; of
        # float32 they are half as fast.
        pointwise = conv.kernel_size == (1, 1) and conv.stride == (1, 1)
        self.as_product = pointwise and conv.weight.device.type == "cpu" and dtype.itemsize == 2
        self._weight: Tensor | None = None
        self._standard: tuple[Tensor, Tensor] | None = None  # mean and inverse deviation of each channel's weights

    @property
    def weight(self) -> Tensor:
        """The weight to convolve with, made when it is first asked for.

        That of a :class:`timm.layers.ScaledStdConv2d` has zero mean and unit variance per output channel, times
        gain / sqrt(fan-in) (Brock et al., ICLR 2021): batch normalisation of the channels.
        """
        if self._weight is None:
            conv, weight = self.conv, self.conv.weight
            if isinstance(conv, ScaledStdConv2d):
                flat = weight.reshape(1, conv.out_channels, -1)
                scale = (conv.gain * conv.scale).view(-1)
                out, mean, invstd = torch.native_batch_norm(flat, scale, None, None, None, True, 0.0, conv.eps)
                self._standard, weight = (mean, invstd), out.view_as(weight)
            self._weight = weight.to(self.dtype)
        return self._weight

    def release(self) -> None:
        """Free the weight; it can be made again."""
        self._weight = None

    def __call__(self, x: Tensor) -> Tensor:
        conv = self.conv
        padding: Any = conv.padding
        return torch.conv2d(x, self.weight, self.bias, conv.stride, padding, conv.dilation, conv.groups)

    def backward(self, grad: Tensor, x: Tensor, *, to_input: bool = True, to_weight: bool = True) -> Tensor:
        """Return the gradient of the input ``x``, and add up those of weight and bias.

        Args:
            grad: of the output.
            x: the input.
            to_input: without it, what is returned means nothing.
            to_weight: without it, nothing is added.
        """
        conv = self.conv
        if self.as_product:
            # (pixels, channels); the products of oneDNN's matrix kernels, which its convolutions do not reach backward
            grad_rows, x_rows = _pixels(grad), _pixels(x)
            grad_x = _maps(grad_rows @ self.weight.flatten(1), x) if to_input else grad
            grad_weight = (grad_rows.t() @ x_rows).view_as(conv.weight) if to_weight else grad
        else:
            grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
                grad,
                x,
                self.weight,
                None,
                conv.stride,
                conv.padding,
                conv.dilation,
                False,
                [0, 0],
                conv.groups,
                [to_input, to_weight, False],
            )
        if to_weight:
            with owner("parameter gradients"):
                self.weight_grad = _accumulate(self.weight_grad, grad_weight, conv.weight)
                if conv.bias is not None:
                    self.bias_grad = _accumulate(self.bias_grad, grad.sum((0, 2, 3)), conv.bias)
        return grad_x if to_input else grad

    def gradients(self) -> Gradients:
        """The convolution's parameters and their gradients, once the last slice is through."""
        conv, found = self.conv, list[tuple[nn.Parameter, Tensor]]()
        assert self.weight_grad is not None
        self.release()
        if self._standard is not None:
            flat = conv.weight.reshape(1, conv.out_channels, -1)
            scale = (conv.gain * conv.scale).view(-1)
            grad_weight, grad_scale, _ = torch.ops.aten.native_batch_norm_backward(
                self.weight_grad.reshape_as(flat),
                flat,
                scale,
                None,
                None,
                *self._standard,
                True,
                conv.eps,
                [True, True, False],
            )
            # Into the sum's own memory, which so becomes the parameter's .grad.
            self.weight_grad.copy_(grad_weight.view_as(conv.weight))
            found.append((conv.gain, (grad_scale * conv.scale).view_as(conv.gain)))
        found.append((conv.weight, self.weight_grad))
        if conv.bias is not None and self.bias_grad is not None:
            found.append((conv.bias, self.bias_grad))
        return [(parameter, grad) for parameter, grad in found if parameter.requires_grad]


class HiddenSpikes(NamedTuple):
    """Spikes and surrogate of a hidden map whose backward pass follows at once, so that codes would save nothing."""

    values: Tensor
    inside: Tensor

    def spikes(self, dtype: torch.dtype) -> Tensor:
        """s(h), of the dtype it was computed in."""
        return self.values

    def window(self, dtype: torch.dtype) -> Tensor:
        """ds/dh as zeros and ones of the same dtype, in place of the spikes."""
        return self.values.copy_(self.inside.view(torch.uint8))


@dataclass
class BlockTrace:
    """What the backward pass of a block needs of its forward pass on one slice. It uses the trace up."""

    potential: Tensor
    hidden: PackedState | HiddenSpikes | None
    projected: Tensor | None


class LeanBlock:
    """``Block(v) = v + gamma * DW2(PW2(s(PW1(DW1(s(v))))))`` on one slice of the batch at a time.

    A slice's trace is its potential, PW2's output, and of the 4C-wide hidden map the 2-bit codes, from which its spikes
    come back without a second PW1.
    """

    def __init__(
        self, expand: Expand, project: PointwiseDepthwise, gamma: nn.Parameter | None, dtype: torch.dtype
    ) -> None:
        self.dtype, self.gamma = dtype, gamma
        self.dw1, self.pw1 = LeanConv(expand.dw1, dtype), LeanConv(expand.pw1, dtype)
        self.pw2, self.dw2 = LeanConv(project.pw2, dtype), LeanConv(project.dw2, dtype)

    def forward(self, potential: Tensor) -> Tensor:
        """(b, C, H, W) -> (b, C, H, W), and no trace."""
        hidden = self.pw1(self.dw1(spikes_of(potential, self.dtype)))
        return self._add(potential, self.pw2(hidden.ge_(THRESHOLD)))

    def forward_traced(
        self, potential: Tensor, *, value: bool = True, at_once: bool = False
    ) -> tuple[Tensor | None, BlockTrace]:
        """The same with a trace; without ``value``, only the trace.

        ``at_once`` says that :meth:`backward` follows before another large map is made.
        """
        hidden = self.pw1(self.dw1(spikes_of(potential, self.dtype)))
        inside = window_of(hidden, self.dtype).to(torch.bool) if at_once else None
        trace = pack(hidden) if inside is None else HiddenSpikes(hidden, inside)
        projected = self.pw2(hidden.ge_(THRESHOLD))
        return self._add(potential, projected) if value else None, BlockTrace(potential, trace, projected)

    def backward(self, grad: Tensor, trace: BlockTrace) -> Tensor:
        """From the gradient of a slice's value to that of its potential, both of the states' dtype."""
        projected, hidden = trace.projected, trace.hidden
        trace.projected = trace.hidden = None
        assert projected is not None
        assert hidden is not None
        large = self._weights_are_large(grad)
        if large:  # then one of them at a time
            self.pw1.release()
        update_grad = grad if self.gamma is None else self.gamma * grad
        grad_projected = self.dw2.backward(update_grad.to(self.dtype), projected, to_weight=self.gamma is None)
        if self.gamma is not None:
            self.dw2.backward(grad.to(self.dtype), projected, to_input=False)
        del projected, update_grad
        grad_hidden = self.pw2.backward(grad_projected, hidden.spikes(self.dtype))
        grad_hidden.mul_(hidden.window(self.dtype))
        del grad_projected, hidden
        if large:
            self.pw2.release()
        spikes = spikes_of(trace.potential, self.dtype)
        grad_expanded = self.pw1.backward(grad_hidden, self.dw1(spikes))
        del grad_hidden
        grad_spikes = self.dw1.backward(grad_expanded, spikes)
        return grad + grad_spikes.mul_(window_of(trace.potential, self.dtype))

    def release(self, potential: Tensor) -> None:
        """Free the large weights if they take more than half of what the hidden map of a slice does: to make them again
        costs little beside the slice, and several blocks' at a time would be most of the memory of the upper levels."""
        if self._weights_are_large(potential):
            self.pw1.release()
            self.pw2.release()

    def _weights_are_large(self, potential: Tensor) -> bool:
        weights = self.pw1.conv.weight.numel() + self.pw2.conv.weight.numel()
        return 2 * weights > EXPANSION * potential.numel()

    def gradients(self) -> Gradients:
        """The block's parameters and their gradients.

        DW2's gradient was summed without gamma, as dL/d(gamma DW2). With w, b its weight and bias, both follow:
        dL/dw = gamma * sum, and dL/dgamma = <w, sum of weight> + b * sum of bias, without DW2's output.
        """
        found: Gradients = []
        weight_sum, bias_sum = self.dw2.weight_grad, self.dw2.bias_grad
        if self.gamma is not None and weight_sum is not None and bias_sum is not None:
            dw2 = self.dw2.conv
            assert dw2.bias is not None
            if self.gamma.requires_grad:
                product = (dw2.weight * weight_sum).sum((1, 2, 3)) + dw2.bias * bias_sum
                found.append((self.gamma, product.view_as(self.gamma)))
            weight_sum.mul_(self.gamma.view(-1, 1, 1, 1))
            bias_sum.mul_(self.gamma.flatten())
        for conv in (self.dw1, self.pw1, self.pw2, self.dw2):
            found += conv.gradients()
        return found

    def _add(self, potential: Tensor, projected: Tensor) -> Tensor:
        update = self.dw2(projected)
        return potential + (update if self.gamma is None else self.gamma * update)


class LeanInput:
    """What comes from the network's input: itself, or a projection of it. No slice depends on another."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self.conv = LeanConv(module, dtype) if isinstance(module, nn.Conv2d) else None
        self.dtype = dtype

    def prepare(self, below: Any, rows: Iterable[slice], statistics: Any = None) -> None:
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

    def finish(self, rows: Iterable[slice], adjoint: Tensor | None) -> None:
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

    def prepare(self, seen: Any, rows: Iterable[slice], statistics: tuple[Tensor, Tensor] | None = None) -> None:
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

    def finish(self, rows: Iterable[slice], adjoint: Tensor | None) -> None:
        """Through the normalisation of the whole batch, and in slices on to the state's adjoint."""
        assert self.grad is not None
        grad_maps, *grads = normalise_backward(
            self.grad, self.maps, *self.statistics, self.bn.weight, self.bn.eps, training=self.bn.training
        )
        self.bn_grads = grads[0], grads[1]
        del self.grad, self.maps
        for r in rows:
            seen = self.seen[r]
            grad_spikes = self.conv.backward(grad_maps[r], spikes_of(seen, self.dtype))
            if adjoint is not None:
                adjoint[r] += grad_spikes.mul_(window_of(seen, self.dtype))

    def gradients(self) -> Gradients:
        """The link's parameters and their gradients."""
        assert self.bn_grads is not None
        own = zip((self.bn.weight, self.bn.bias), self.bn_grads, strict=True)
        return self.conv.gradients() + [(p, grad) for p, grad in own if p.requires_grad]


def _accumulate(total: Tensor | None, grad: Tensor, like: Tensor) -> Tensor:
    if total is not None:
        return total.add_(grad)
    # In the parameter's own layout, so that autograd takes it as .grad as it is.
    if grad.dtype == like.dtype and grad.is_contiguous() and like.is_contiguous():
        return grad.view(-1).view(like.shape)
    return torch.empty_like(like).copy_(grad)


def _pixels(maps: Tensor) -> Tensor:
    """(B, C, H, W) as (B * H * W, C): a view of maps in channels-last layout."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """Undo :func:`_pixels`, for maps of the same (B, H, W) as ``like``."""
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)
