"""The spiking block, forward and backward without autograd."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trevsnn.network.blocks import Expand, PointwiseDepthwise
from trevsnn.network.keep import PartName
from trevsnn.network.lean.conv import LeanConv, is_lean_conv
from trevsnn.network.spike import SPIKE, THRESHOLD, pull_back
from trevsnn.neurons import PackedState
from trevsnn.reversible.memory_owner import hand_over, owner
from trevsnn.reversible.two_pass import Gradients


class UnpackedSpikes(NamedTuple):
    """Spikes and surrogate of a hidden map whose backward pass follows at once, so that codes would save nothing.

    Attributes:
        values: s(h), zeros and ones of the dtype it was computed in.
        inside: whether h lies in the surrogate's window, bool.
    """

    values: Tensor
    inside: Tensor

    def spikes(self, dtype: torch.dtype) -> Tensor:
        """s(h)."""
        return self.values

    def pull_back(self, gradient: Tensor) -> Tensor:
        """``(ds/dh)^T gradient``, written over the spikes."""
        return self.values.copy_(self.inside.view(torch.uint8)).mul_(gradient)


@dataclass
class BlockTrace:
    """What the backward pass of a block needs of its forward pass on one slice; it uses the trace up.

    Attributes:
        potential: v, (b, C, H, W).
        hidden: s(h) and its surrogate, of h = PW1(DW1(s(v))), (b, 4C, H, W).
        projected: PW2(s(h)), (b, C, H, W).
    """

    potential: Tensor
    hidden: PackedState | UnpackedSpikes | None
    projected: Tensor | None


class KeptMaps(NamedTuple):
    """What a block's first pass kept of a slice, so that the trace is there again without PW1, or PW2.

    Attributes:
        hidden: the code of h, (b, 4C, H, W), if it was kept.
        projected: PW2(s(h)), (b, C, H, W), if it was kept.
    """

    hidden: PackedState | None
    projected: Tensor | None


NOTHING_KEPT = KeptMaps(None, None)


def is_lean_block(expand: Expand, project: PointwiseDepthwise) -> bool:
    """Whether :class:`LeanBlock` computes a block of these halves: its convolutions keep the size of a map, and it its
    channels. Otherwise the sum that it ends with would broadcast."""
    convs: tuple[nn.Conv2d, ...] = (expand.dw1, expand.pw1, project.pw2, project.dw2)
    return project.dw2.out_channels == expand.dw1.in_channels and all(map(_keeps_size, convs))


def _keeps_size(conv: nn.Conv2d) -> bool:
    """``H + 2 padding - dilation (kernel - 1) = H``, for a convolution that is lean."""
    if not is_lean_conv(conv) or conv.stride != (1, 1):
        return False
    reach = [step * (size - 1) for step, size in zip(conv.dilation, conv.kernel_size, strict=True)]
    return [2 * int(pad) for pad in conv.padding] == reach


class LeanBlock:
    """``Block(v) = v + gamma * DW2(PW2(s(PW1(DW1(s(v))))))`` on one slice of the batch at a time.

    A slice's trace is its potential, PW2's output, and of the 4C-wide hidden map the 2-bit codes, or its spikes where the
    backward pass follows at once: either way they come back without a second PW1.

    Args:
        expand, project, gamma: the block's two halves, that :func:`is_lean_block` accepts, and its gamma if it has one.
        dtype: convolutions compute in.
        pixels: B * H * W of the whole batch.

    Attributes:
        kernels: whether Triton kernels compute it.
    """

    kernels = False

    def __init__(
        self, expand: Expand, project: PointwiseDepthwise, gamma: nn.Parameter | None, dtype: torch.dtype, pixels: int
    ) -> None:
        self.dtype, self.gamma = dtype, gamma
        self.dw1, self.pw1 = LeanConv(expand.dw1, dtype), LeanConv(expand.pw1, dtype)
        self.pw2, self.dw2 = LeanConv(project.pw2, dtype), LeanConv(project.dw2, dtype)
        # PW1 and PW2 take more than a quarter of what the hidden map of the whole batch would: 2 C > pixels / 4.
        self.large_weights = 8 * expand.pw1.in_channels > pixels

    def forward(self, potential: Tensor) -> Tensor:
        """(b, C, H, W) -> (b, C, H, W), and no trace."""
        hidden = self.pw1(self.dw1(self._fire(potential)))
        return self._add(potential, self.pw2(SPIKE.fire_(hidden)))

    def forward_traced(
        self, potential: Tensor, *, value: bool = True, at_once: bool = False
    ) -> tuple[Tensor | None, BlockTrace]:
        """The same with a trace; without ``value``, only the trace.

        ``at_once`` says that :meth:`backward` follows before another large map is made.
        """
        hidden = self.pw1(self.dw1(self._fire(potential)))
        trace = UnpackedSpikes(hidden, SPIKE.window(hidden)) if at_once else SPIKE.code(hidden)
        # Not fire_: a NaN has come out in the first pass, and no code holds it.
        projected = self.pw2(hidden.ge_(THRESHOLD))
        return self._add(potential, projected) if value else None, BlockTrace(potential, trace, projected)

    def forward_kept(self, potential: Tensor, parts: Collection[PartName]) -> tuple[Tensor, KeptMaps]:
        """:meth:`forward`, and what :meth:`trace_again` can do with of "codes" and "projected"."""
        hidden = self.pw1(self.dw1(self._fire(potential)))
        with owner("kept"):
            code = SPIKE.code(hidden) if "codes" in parts else None
        projected = self.pw2(SPIKE.fire_(hidden))
        if "projected" not in parts:
            return self._add(potential, projected), KeptMaps(code, None)
        hand_over(projected, "kept")
        return self._add(potential, projected), KeptMaps(code, projected)

    def trace_again(
        self, potential: Tensor, kept: KeptMaps, *, value: bool = True, at_once: bool = False
    ) -> tuple[Tensor | None, BlockTrace]:
        """:meth:`forward_traced` on the slice of which maps were kept, to the same bits."""
        hidden, projected = kept
        if hidden is None:  # nor is PW2's output kept, which spares less for its bytes
            return self.forward_traced(potential, value=value, at_once=at_once)
        if projected is None:
            projected = self.pw2(hidden.spikes(self.dtype))
        return self._add(potential, projected) if value else None, BlockTrace(potential, hidden, projected)

    def backward(self, grad: Tensor, trace: BlockTrace) -> Tensor:
        """From dL/dout to dL/dv of one slice, both (b, C, H, W) of the states' dtype.

        With ``u = DW1(s(v))``, ``h = PW1(u)``, ``p = PW2(s(h))``, ``out = v + gamma DW2(p)``, and W^T the transpose of
        a convolution::

            dL/dp = DW2^T (gamma dL/dout)
            dL/dh = s'(h) PW2^T dL/dp
            dL/du = PW1^T dL/dh
            dL/dv = dL/dout + s'(v) DW1^T dL/du

        Each convolution adds up the gradients of its own weights.
        """
        projected, hidden = trace.projected, trace.hidden
        trace.projected = trace.hidden = None
        assert projected is not None
        assert hidden is not None
        if self.large_weights:  # then one of them at a time
            self.pw1.release()
        update_grad = grad if self.gamma is None else self.gamma * grad
        grad_projected = self.dw2.backward(update_grad.to(self.dtype), projected, to_weight=self.gamma is None)
        if self.gamma is not None:
            # Without gamma it may exceed float16 where with gamma it does not.
            wide = grad.dtype if self.dtype is torch.float16 else self.dtype
            self.dw2.backward(grad.to(wide), projected.to(wide), to_input=False)
        del projected, update_grad
        grad_hidden = self.pw2.backward(grad_projected, hidden.spikes(self.dtype))
        grad_hidden = hidden.pull_back(grad_hidden)
        del grad_projected, hidden
        if self.large_weights:
            self.pw2.release()
        spikes = self._fire(trace.potential)
        grad_expanded = self.pw1.backward(grad_hidden, self.dw1(spikes))
        del grad_hidden
        grad_spikes = self.dw1.backward(grad_expanded, spikes)
        return grad + pull_back(trace.potential, grad_spikes)

    def release(self) -> None:
        """Free the weights if they are large beside the batch: making them again costs a little for each slice."""
        if self.large_weights:
            self.pw1.release()
            self.pw2.release()

    def gradients(self) -> Gradients:
        """The block's parameters and their gradients, once the last slice is through.

        DW2's gradient was summed without gamma, as dL/d(gamma DW2). With w, b the weight and bias, if any, that it
        convolves with, all follow: dL/dw = gamma * sum, likewise of b, and dL/dgamma = <w, sum of weight> + b * sum of
        bias, without DW2's output.
        """
        gradients: Gradients = []
        weight_sum, bias_sum, bias = self.dw2.weight_grad, self.dw2.bias_grad, self.dw2.conv.bias
        if self.gamma is not None and weight_sum is not None:
            of_gamma = (self.dw2.weight * weight_sum).sum((1, 2, 3))
            weight_sum.mul_(self.gamma.view(-1, 1, 1, 1))
            if bias is not None and bias_sum is not None:
                of_gamma = of_gamma + bias * bias_sum
                bias_sum.mul_(self.gamma.flatten())
            if self.gamma.requires_grad:
                gradients.append((self.gamma, of_gamma.view_as(self.gamma)))
        for conv in (self.dw1, self.pw1, self.pw2, self.dw2):
            gradients += conv.gradients()
        return gradients

    def _fire(self, potential: Tensor) -> Tensor:
        """s(v), without a look for NaN: that goes on beside it, in ``v + ...``."""
        return torch.ge(potential, THRESHOLD, out=torch.empty_like(potential)).to(self.dtype)

    def _add(self, potential: Tensor, projected: Tensor) -> Tensor:
        update = self.dw2(projected)
        return potential + (update if self.gamma is None else self.gamma * update)
