"""A convolution, plain or weight-standardised, forward and backward without autograd."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor, nn

from trevsnn.reversible.memory_owner import owner
from trevsnn.reversible.two_pass import Gradients


def is_lean_conv(conv: nn.Conv2d) -> bool:
    """Whether :class:`LeanConv` computes what a convolution of its class does: zeros, so many on both sides, pad it."""
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


class LeanConv:
    """A convolution whose weight is made ready once for all slices, and whose gradients are summed over them.

    A slice's gradients are of the dtype it computes in, as autograd's of the whole batch are, and their sum over slices of the
    parameter's. What float16 cannot hold becomes infinite or NaN, and so do the sums: the loss scale is then halved.

    Args:
        conv: plain or weight-standardised, one that :func:`is_lean_conv` accepts.
        dtype: it computes in.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        self.conv, self.dtype = conv, dtype
        self.weight_grad: Tensor | None = None
        self.bias_grad: Tensor | None = None
        low = dtype.itemsize == 2 and conv.stride == (1, 1)
        # Backward, matrix products of 16-bit numbers are a quarter faster on a CPU than the same work as a convolution; of
        # float32 they are half as fast.
        self.as_product = low and conv.groups == 1 and conv.kernel_size == (1, 1) and conv.padding == (0, 0)
        # On a CPU, too, oneDNN has a fast weight gradient of depthwise convolutions for 3 x 3 only.
        self.in_tiles = (
            low
            and conv.weight.device.type == "cpu"
            and conv.groups == conv.in_channels == conv.out_channels
            and conv.dilation == (1, 1)
            and conv.padding == tuple(size // 2 for size in conv.kernel_size)
            and all(size > 3 and size % 2 == 1 for size in conv.kernel_size)
        )
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None
        self._standard: tuple[Tensor, Tensor] | None = None  # mean and inverse deviation of each channel's weights

    @property
    def weight(self) -> Tensor:
        """The weight to convolve with, made when it is first asked for."""
        if self._weight is None:
            self._weight = self.unrounded.to(self.dtype)
        return self._weight

    @property
    def unrounded(self) -> Tensor:
        """The weight as it is before it is rounded to the dtype.

        That of a :class:`timm.layers.ScaledStdConv2d` has zero mean and unit variance per output channel, times
        gain / sqrt(fan-in) (Brock et al., ICLR 2021): batch normalisation of the channels.
        """
        conv = self.conv
        if not isinstance(conv, ScaledStdConv2d):
            return conv.weight
        flat, scale = _channels(conv)
        out, mean, invstd = torch.native_batch_norm(flat, scale, None, None, None, True, 0.0, conv.eps)
        self._standard = mean, invstd
        return out.view_as(conv.weight)

    @property
    def bias(self) -> Tensor | None:
        """The bias to add, if there is one, likewise."""
        if self._bias is None and self.conv.bias is not None:
            self._bias = self.conv.bias.to(self.dtype)
        return self._bias

    def release(self) -> None:
        """Free the weight; it can be made again."""
        self._weight = None

    def __call__(self, x: Tensor) -> Tensor:
        conv = self.conv
        padding: Any = conv.padding
        return torch.conv2d(x, self.weight, self.bias, conv.stride, padding, conv.dilation, conv.groups)

    def product(self, x: Tensor) -> Tensor:
        """What a pointwise convolution computes, as a matrix product that adds the bias before it rounds.

        On a CUDA device a convolution writes its sums first, and adds the bias in a pass of its own.
        """
        rows, matrix = _pixels(x), self.weight.flatten(1).t()
        return _maps(rows @ matrix if self.bias is None else torch.addmm(self.bias, rows, matrix), x)

    def backward(self, grad: Tensor, x: Tensor, *, to_input: bool = True, to_weight: bool = True) -> Tensor:
        """Return the gradient of the input ``x``, and add up those of weight and bias.

        With the convolution as a matrix W, ``y = W x + b``, and g = dL/dy::

            dL/dx      = W^T g
            dL/dW[i,j] = sum over pixels of g times x shifted by (i,j)
            dL/db      = sum over pixels of g

        Args:
            grad: of the output.
            x: the input.
            to_input: without it, the gradient of x is not computed, and what is returned is to be ignored.
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
                [to_input, to_weight and not self.in_tiles, False],
            )
            if to_weight and self.in_tiles:
                grad_weight = _depthwise_weight_grad(grad, x, self.weight)
        if to_weight:
            self.add(grad_weight, None if conv.bias is None else _sum_of_pixels(grad))
        return grad_x if to_input else grad

    def add(self, grad_weight: Tensor, grad_bias: Tensor | None) -> None:
        """Add to the gradients of the weight that it convolves with, and of the bias if there is one."""
        with owner("parameter gradients"):
            self.weight_grad = _accumulate(self.weight_grad, grad_weight, self.conv.weight)
            if self.conv.bias is not None and grad_bias is not None:
                self.bias_grad = _accumulate(self.bias_grad, grad_bias, self.conv.bias)

    def gradients(self) -> Gradients:
        """The convolution's parameters and their gradients, once the last slice is through.

        A standardised weight is ``W = r n`` with ``n = (w - mean) / std`` over the fan-in N of each output channel and
        ``r = gain / sqrt(N)``: batch normalisation of the channel's weights with the scale r, so that with G = dL/dW::

            dL/dw    = r / std (G - mean(G) - n mean(G n))
            dL/dgain = sum(G n) / sqrt(N)
        """
        conv, gradients = self.conv, Gradients()
        weight_grad, bias_grad = self.weight_grad, self.bias_grad
        assert weight_grad is not None
        self.weight_grad = self.bias_grad = None
        self.release()
        if isinstance(conv, ScaledStdConv2d) and self._standard is not None:
            flat, scale = _channels(conv)
            grad_weight, grad_scale, _ = torch.ops.aten.native_batch_norm_backward(
                weight_grad.reshape_as(flat),
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
            weight_grad.copy_(grad_weight.view_as(conv.weight))
            gradients.append((conv.gain, (grad_scale * conv.scale).view_as(conv.gain)))
        gradients.append((conv.weight, weight_grad))
        if conv.bias is not None and bias_grad is not None:
            gradients.append((conv.bias, bias_grad))
        return [(parameter, grad) for parameter, grad in gradients if parameter.requires_grad]


def _channels(conv: ScaledStdConv2d) -> tuple[Tensor, Tensor]:
    """The weight as batch normalisation takes it, (1, C_out, fan-in), and each channel's factor gain / sqrt(fan-in)."""
    return conv.weight.reshape(1, conv.out_channels, -1), (conv.gain * conv.scale).view(-1)


def _accumulate(total: Tensor | None, grad: Tensor, like: Tensor) -> Tensor:
    if total is not None:
        return total.add_(grad)
    # In the parameter's own layout, so that autograd takes it as .grad as it is.
    if grad.dtype == like.dtype and grad.is_contiguous() and like.is_contiguous():
        return grad.view(-1).view(like.shape)
    return torch.empty_like(like).copy_(grad)


def _depthwise_weight_grad(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The weight gradient of a depthwise convolution with a kernel of odd size > 3, in tiles of 3 x 3 taps.

    ``dW[i,j] = sum over pixels of grad[y,x] * padded[y+i,x+j]``, so the taps around (i+1, j+1) are those of a 3 x 3
    convolution without padding on the padded input from (i, j) on. Where tiles overlap, they agree.
    """
    (height, width), (rows, columns) = grad.shape[2:], weight.shape[2:]
    padded = nn.functional.pad(x, [columns // 2, columns // 2, rows // 2, rows // 2])
    weight_grad = torch.empty_like(weight)
    for i in range(0, rows - 2, 2):
        for j in range(0, columns - 2, 2):
            tile = padded[:, :, i : i + height + 2, j : j + width + 2]
            _, grad_tile, _ = torch.ops.aten.convolution_backward(
                grad, tile, weight[:, :, :3, :3], None, [1, 1], [0, 0], [1, 1], False, [0, 0], grad.shape[1],
                [False, True, False],
            )  # fmt: skip
            weight_grad[:, :, i : i + 3, j : j + 3] = grad_tile
    return weight_grad


def _sum_of_pixels(grad: Tensor) -> Tensor:
    """(B, C, H, W) -> (C,)."""
    if grad.device.type == "cuda" and grad.dtype.itemsize == 2:  # as a product, which is several times faster there
        rows = _pixels(grad)
        return torch.mv(rows.t(), rows.new_ones(rows.shape[0]))
    return grad.sum((0, 2, 3))


def _pixels(maps: Tensor) -> Tensor:
    """(B, C, H, W) as (B * H * W, C): a view of maps in channels-last layout."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """Undo :func:`_pixels`, for maps of the same (B, H, W) as ``like``."""
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)
