"""Convolutions in 8-bit arithmetic on a CPU, dense or spike-driven, in the integers that ONNX's QLinearConv defines.

The loops are those of :mod:`trevsnn.deploy.int8.loops`; dense matrix products are :mod:`trevsnn.deploy.int8.product`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trevsnn.deploy.int8 import loops
from trevsnn.deploy.int8.maps import Array, Codes, Floats, check_map, pad_to_lanes
from trevsnn.deploy.int8.product import IntegerProduct

HIDDEN_AT_ONCE = 2**18  # hidden neurons a thread computes at once: their sums fit a cache of 1 MiB
INPUTS_AT_ONCE = 2**19  # inputs of output pixels brought together at once
NEVER = 2**31 - 1  # a threshold no sum is above


class QLinearConv(NamedTuple):
    """What ONNX's QLinearConv takes besides its input x, in ONNX's order.

    ``y = round((sum (x - x_zero) * (weight - weight_zero) + bias) * scale) + y_zero``, limited to 0..255, halves to even.

    Attributes:
        x_scale, x_zero: scale and zero point of the input; the scale is float32, the zero point uint8.
        weight: (N, C / groups, kh, kw), int8.
        weight_scale, weight_zero: (N,), float32 and int8; the zero points are 0.
        y_scale, y_zero: scale and zero point of the output.
        bias: (N,), int32.
    """

    x_scale: Any
    x_zero: Any
    weight: NDArray[np.int8]
    weight_scale: Floats
    weight_zero: NDArray[np.int8]
    y_scale: Any
    y_zero: Any
    bias: NDArray[np.int32]

    def check(self) -> QLinearConv:
        """Itself. The compiled loops read by address: what does not fit together would be read from beyond its end.

        Raises:
            ValueError: shapes or types are not those above.
        """
        types = {
            "x_scale": np.float32, "x_zero": np.uint8, "weight": np.int8, "weight_scale": np.float32,
            "weight_zero": np.int8, "y_scale": np.float32, "y_zero": np.uint8, "bias": np.int32,
        }  # fmt: skip
        outputs = self.weight.shape[:1]
        for name, kind in types.items():
            value = getattr(self, name)
            shape = (
                outputs if name in ("weight_scale", "weight_zero", "bias") else value.shape if name == "weight" else ()
            )
            if value.dtype != kind or value.shape != shape or value.size == 0:
                raise ValueError(f"{name} of a convolution is {value.dtype} {value.shape}")
        if self.weight.ndim != 4 or self.weight_zero.any():
            raise ValueError("a convolution has no four axes, or zero points of weights that are not 0")
        return self

    @property
    def scale(self) -> Floats:
        """``x_scale * weight_scale / y_scale``, (N,), float32: from a sum to the output's code."""
        return self.x_scale * self.weight_scale / self.y_scale


class Hidden(NamedTuple):
    """Spikes of the hidden neurons between PW1 and PW2, ``s(PW1(codes))``, not computed yet.

    Their map has four times the channels of any other. PW2 has it computed where it needs it, some pixels at a time.

    Attributes:
        codes: PW1's input.
        conv: PW1; a neuron fires where its sum is above ``conv.threshold``.
    """

    codes: Codes
    conv: IntegerConv

    def parts(self) -> Iterator[tuple[int, Array]]:
        """PW1's sums, (pixels, 4C), some pixels at a time, and the number of the first of them."""
        pixels, product = self.conv.pixels(self.codes), self.conv.product
        most = max(256, torch.get_num_threads() * HIDDEN_AT_ONCE // len(self.conv.bias))  # a product of fewer is slow
        at_once = ceil(len(pixels) / ceil(len(pixels) / most))
        for first in range(0, len(pixels), at_once):
            yield first, product(pixels[first : first + at_once])


class IntegerDepthwise:
    """DW1 or DW2, a depthwise convolution of stride 1, with what comes before or after it.

    Raises:
        ValueError: the constants, or later the maps, do not fit together.
    """

    def __init__(self, constants: QLinearConv) -> None:
        weight_C1HW, bias = constants.check().weight, constants.bias
        _, inputs, height, width = weight_C1HW.shape
        if inputs != 1 or height != width or height % 2 == 0:
            raise ValueError(f"the weight of a depthwise convolution is {weight_C1HW.shape}")
        self.x_zero, self.y_zero = int(constants.x_zero), int(constants.y_zero)
        self.loops, self.kernel_size = loops.chosen(), weight_C1HW.shape[-1]
        self.weight = pad_to_lanes(weight_C1HW.reshape(len(bias), -1).T.astype(np.float32))
        self.bias, self.scale = pad_to_lanes(bias), pad_to_lanes(constants.scale)

    def of_spikes(self, threshold: np.float32, potential: Floats) -> Codes:
        """``DW(s(v))``, codes, with ``s(v) = 1 if v >= threshold else 0``."""
        check_map(potential, np.float32, len(self.bias))
        out = np.empty(potential.shape, np.uint8)
        self.loops.depthwise(
            potential, threshold, self.x_zero, self.kernel_size, self.weight, self.bias, self.scale, self.y_zero,
            np.float32(0), None, None, None, out.reshape(-1),
        )  # fmt: skip
        return out

    def added(
        self, y_scale: np.float32, alpha: Floats, potential: Floats, codes: Codes, previous: Floats | None = None
    ) -> Floats:
        """``v + y_scale * (DW(codes) - y_zero)``, and ``alpha * previous`` added to it where there is a state before."""
        check_map(codes, np.uint8, len(self.bias))
        shapes = [(potential, codes.shape)]
        shapes += [] if previous is None else [(previous, codes.shape), (alpha, self.bias.shape)]
        if any(array.shape != shape or array.dtype != np.float32 for array, shape in shapes):
            raise ValueError(f"states are not of the shape {codes.shape} of what is added to them")
        out = np.empty(potential.shape, np.float32)
        self.loops.depthwise(
            codes, None, self.x_zero, self.kernel_size, self.weight, self.bias, self.scale, self.y_zero, y_scale,
            potential.reshape(-1), alpha, None if previous is None else previous.reshape(-1), out.reshape(-1),
        )  # fmt: skip
        return out


class IntegerConv:
    """A convolution without groups, from codes or hidden spikes to codes, or to hidden spikes.

    Dense, it is a product of matrices, ``im2col(x - x_zero) @ weight``. Spike-driven, the weight rows of the inputs that
    fire are added up.

    Args:
        constants: of the convolution.
        attributes: of ONNX's QLinearConv: ``strides`` and ``pads``.
        crossover: firing rate of a spiking input from which on it is computed densely.
        spiking: the input is 0 and 1.
        firing: the output is given as hidden spikes, 1 where the code is 1 or more; the convolution is pointwise.
        picture: the input is a picture, whose few channels are not zero-padded.

    Attributes:
        rate: firing rate of a spiking input in the first call, by which later calls go too; None before it.
        threshold: of hidden neurons: they fire where the sum is above it, (N,).
    """

    def __init__(
        self,
        constants: QLinearConv,
        attributes: dict[str, Any],
        crossover: float,
        *,
        spiking: bool = False,
        firing: bool = False,
        picture: bool = False,
    ) -> None:
        weight_NCHW = constants.check().weight
        self.x_zero, self.y_zero = int(constants.x_zero), int(constants.y_zero)
        self.kernel_size = weight_NCHW.shape[2:]
        self.stride, self.padding = tuple(attributes["strides"]), tuple(attributes["pads"][:2])
        if min(self.stride) < 1 or min(self.padding) < 0:
            raise ValueError(f"a convolution has strides {self.stride} and padding {self.padding}")
        self.pointwise = self.kernel_size == self.stride == (1, 1) and self.x_zero == 0
        self.inputs = weight_NCHW[0].size
        self.bias, self.scale = pad_to_lanes(constants.bias), pad_to_lanes(constants.scale)
        weight_HWCN = pad_to_lanes(weight_NCHW.transpose(2, 3, 1, 0))
        if not picture:
            weight_HWCN = pad_to_lanes(weight_HWCN, axis=2)
        self.channels = weight_HWCN.shape[2]
        self.weight = pad_to_lanes(weight_HWCN.reshape(-1, weight_HWCN.shape[-1]), axis=0)
        self.product = IntegerProduct(self.weight, signed=self.x_zero > 0)
        self.rows = np.arange(len(self.weight), dtype=np.int32) * np.int32(self.weight.shape[1])
        self.threshold = None
        if firing:
            largest_silent = _largest_silent_sum(constants.bias, constants.scale)
            self.threshold = pad_to_lanes(largest_silent, value=NEVER).astype(self.product.dtype)
        self.no_spike = np.zeros(len(self.weight), np.int8)  # a spike is above it
        self.loops = loops.chosen()
        self.spiking, self.crossover = spiking, crossover
        self.rate: float | None = None

    def __call__(self, x: Codes | Hidden) -> Codes | Hidden:
        """(B, H, W, C) to (B, H', W', N). Raises ValueError where the maps do not fit."""
        if isinstance(x, Hidden):
            if x.conv.weight.shape[1] != len(self.weight) or not self.pointwise:
                raise ValueError("PW2 is not for as many inputs as PW1 has outputs")
            size, parts, threshold = x.codes.shape[:3], x.parts, x.conv.threshold
        elif self.threshold is not None:
            check_map(x, np.uint8, self.channels)
            return Hidden(x, self)
        else:
            check_map(x, np.uint8, self.channels)
            size = self.output_size(x)
            parts, threshold = partial(self.columns, x, size), self.no_spike
        out = np.empty((size[0] * size[1] * size[2], len(self.bias)), np.uint8)
        if self.spiking and self.rate is None:
            spikes = sum(np.count_nonzero(part > threshold) for _, part in parts())
            self.rate = spikes / (len(out) * self.inputs)
        for first, part in parts():
            self.compute(out[first : first + len(part)], part, threshold)
        return out.reshape(*size, -1)

    def compute(self, out: Array, maps: Array, threshold: Array | None) -> None:
        """Write the codes of some pixels, (pixels, N).

        Args:
            out: is written.
            maps: the pixels' inputs, (pixels, K); of a spiking input, 1 where they are above the threshold.
            threshold: (K,), of the maps' type.
        """
        if self.rate is not None and self.rate < self.crossover:
            self.loops.accumulate(maps, threshold, self.rows, self.weight, self.bias, self.scale, self.y_zero, out)
            return
        if maps.dtype != np.int8:  # PW1's sums
            spikes = np.empty(maps.shape, np.int8)
            self.loops.binarise(maps, threshold, spikes)
            maps = spikes
        self.loops.requantise(self.product(maps), self.bias, self.scale, self.y_zero, out)

    def output_size(self, codes: Codes) -> tuple[int, int, int]:
        """B, H', W' with ``n' = floor((n + 2 padding - kernel) / stride) + 1``."""
        batch, height, width, _ = codes.shape
        if self.pointwise:
            return batch, height, width
        (rows, across), (down, right), (above, left) = self.kernel_size, self.stride, self.padding
        return batch, (height + 2 * above - rows) // down + 1, (width + 2 * left - across) // right + 1

    def pixels(self, codes: Codes) -> Array:
        """The inputs of a pointwise convolution, (pixels, C), int8."""
        return codes.view(np.int8).reshape(-1, len(self.weight))

    def columns(self, codes: Codes, size: tuple[int, int, int]) -> Iterator[tuple[int, Array]]:
        """``codes - x_zero`` under the kernel at every output pixel (im2col), (pixels, K), int8, some pixels at a time,
        and the number of the first of them."""
        if self.pointwise:
            yield 0, self.pixels(codes)
            return
        inputs, (batch, height, width) = len(self.weight), size
        if min(height, width) < 1:
            raise ValueError(f"a convolution of {codes.shape[1]} x {codes.shape[2]} pixels gives none")
        lines = max(1, INPUTS_AT_ONCE // (width * inputs))
        for first in range(0, batch * height, lines):
            out = np.empty(min(lines, batch * height - first) * width * inputs, np.int8)
            self.loops.im2col(
                codes, self.x_zero, self.kernel_size, self.stride, self.padding, (height, width), inputs, first, out
            )
            yield first * width, out.reshape(-1, inputs)


def _largest_silent_sum(bias: Array, scale: Array) -> NDArray[np.int32]:
    """The largest sum, int32, with ``round((sum + bias) * scale) < 1``, for each channel, by bisection.

    The code grows with the sum, so above it the code is 1 or more: the neuron fires.
    """
    silent, firing = np.full(len(bias), -(2**31), np.int64), np.full(len(bias), 2**31 - 1, np.int64)
    for _ in range(32):
        middle = (silent + firing) // 2
        fires = np.rint((middle + bias).astype(np.float32) * scale) >= 1
        silent, firing = np.where(fires, silent, middle), np.where(fires, middle, firing)
    return silent.astype(np.int32)
