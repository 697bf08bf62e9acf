"""Convolutions in 8-bit arithmetic on a CPU, dense or spike-driven, in the integers that ONNX's QLinearConv defines.

Maps are codes (B, H, W, C), uint8, whose channels are filled up to a multiple of 32 by such as stand for 0. The loops are in
:mod:`trevsnn.deploy.int8.loops_numba`, dense matrix products PyTorch's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache, partial
from importlib import import_module
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trevsnn.deploy.int8.product import IntegerProduct

LANES = 32  # of the kernels: channels are filled up to a multiple of it
PART = 2**18  # hidden neurons computed at a time by a thread, whose sums fit a cache of 1 MiB
COLUMNS = 2**19  # inputs of output pixels that are brought together at a time
NEVER = 2**31 - 1  # a threshold

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Array = NDArray[Any]


class Hidden(NamedTuple):
    """Spikes of the hidden neurons between PW1 and PW2: where PW1's sums are above a threshold.

    There are so many of them that they are computed where they are used, some pixels at a time.

    Attributes:
        codes: PW1's inputs.
        conv: PW1.
    """

    codes: Codes
    conv: IntegerConv

    def parts(self) -> Iterator[tuple[int, Array]]:
        """PW1's sums, (pixels, N), some pixels at a time, and the number of the first pixel."""
        maps, product = self.conv.pixels(self.codes), self.conv.product
        most = max(256, torch.get_num_threads() * PART // len(self.conv.bias))  # of fewer a product is slow
        size = ceil(len(maps) / ceil(len(maps) / most))
        for first in range(0, len(maps), size):
            yield first, product(maps[first : first + size])


class IntegerDepthwise:
    """DW1 or DW2, of stride 1, with what comes before or after it.

    Args:
        constants: QLinearConv's inputs after the first: scale and zero of the input, weight, its scale and zero, scale and
            zero of the output, bias. Scales of maps are 1, zeros of weights 0.
    """

    def __init__(self, constants: list[Array]) -> None:
        _, from_zero, weight_C1HW, scale, _, _, to_zero, bias = constants
        self.from_zero, self.to_zero = int(from_zero), int(to_zero)
        self.kernel, self.size = compiled(), weight_C1HW.shape[-1]
        self.weight = filled(weight_C1HW.reshape(len(bias), -1).T.astype(np.float32))
        self.bias, self.scale = filled(bias), filled(scale)

    def of_spikes(self, threshold: np.float32, potential: Floats) -> Codes:
        """Codes of the spikes of a potential, which fires at the threshold."""
        out = np.empty(potential.shape, np.uint8)
        self.kernel.depthwise(
            potential, threshold, self.from_zero, self.size, self.weight, self.bias, self.scale, self.to_zero,
            np.float32(0), None, None, None, out.reshape(-1),
        )  # fmt: skip
        return out

    def added(
        self, step: np.float32, alpha: Floats | None, potential: Floats, codes: Codes, previous: Floats | None = None
    ) -> Floats:
        """``potential + step * self(codes)``, and ``alpha * previous`` added where they are given."""
        out = np.empty(potential.shape, np.float32)
        self.kernel.depthwise(
            codes, None, self.from_zero, self.size, self.weight, self.bias, self.scale, self.to_zero, step,
            potential.reshape(-1), alpha, None if previous is None else previous.reshape(-1), out.reshape(-1),
        )  # fmt: skip
        return out


class IntegerConv:
    """A convolution without groups: codes or hidden spikes to codes, or to hidden spikes.

    Args:
        constants: as :class:`IntegerDepthwise`.
        attributes: QLinearConv's, with ``strides`` and ``pads``.
        crossover: firing rate of a spiking input from which on it is computed densely.
        spiking: the input is 0 and 1.
        firing: hidden neurons follow, which fire where the code is 1 or more; the convolution is pointwise.
        picture: the input is one, whose few channels are not filled up.

    Attributes:
        rate: firing rate of a spiking input in the first call, which later ones go by; None before it.
    """

    def __init__(
        self,
        constants: list[Array],
        attributes: dict[str, Any],
        crossover: float,
        *,
        spiking: bool = False,
        firing: bool = False,
        picture: bool = False,
    ) -> None:
        _, from_zero, weight_NCHW, scale, _, _, to_zero, bias = constants
        self.from_zero, self.to_zero = int(from_zero), int(to_zero)
        self.kernel_size = weight_NCHW.shape[2:]
        self.stride, self.padding = tuple(attributes["strides"]), tuple(attributes["pads"][:2])
        self.pointwise = self.kernel_size == self.stride == (1, 1) and self.from_zero == 0
        self.inputs = weight_NCHW[0].size
        self.bias, self.scale = filled(bias), filled(scale)
        weight_HWCN = filled(weight_NCHW.transpose(2, 3, 1, 0))
        if not picture:
            weight_HWCN = filled(weight_HWCN, axis=2)
        self.weight = filled(weight_HWCN.reshape(-1, weight_HWCN.shape[-1]), axis=0)
        self.product = IntegerProduct(self.weight, signed=self.from_zero > 0)
        self.rows = np.arange(len(self.weight), dtype=np.int32) * np.int32(self.weight.shape[1])
        self.threshold = filled(_threshold(bias, scale), value=NEVER).astype(self.product.dtype) if firing else None
        self.nothing = np.zeros(len(self.weight), np.int8)  # what spikes are above
        self.kernel = compiled()
        self.spiking, self.crossover = spiking, crossover
        self.rate: float | None = None

    def __call__(self, x: Codes | Hidden) -> Codes | Hidden:
        if isinstance(x, Hidden):
            size, parts, threshold = x.codes.shape[:3], x.parts, x.conv.threshold
        elif self.threshold is not None:
            return Hidden(x, self)
        else:
            size = self.output_size(x)
            parts, threshold = partial(self.columns, x, size), self.nothing
        out = np.empty((size[0] * size[1] * size[2], len(self.bias)), np.uint8)
        if self.spiking and self.rate is None:
            active = sum(np.count_nonzero(part > threshold) for _, part in parts())
            self.rate = active / (len(out) * self.inputs)
        for first, part in parts():
            self.fill(out[first : first + len(part)], part, threshold)
        return out.reshape(*size, -1)

    def fill(self, out: Array, maps: Array, threshold: Array | None) -> None:
        """Codes of some pixels, (pixels, N), of their inputs, (pixels, K), which if spiking are 1 above the threshold."""
        if self.rate is not None and self.rate < self.crossover:
            self.kernel.accumulate(
                maps, threshold, self.rows, self.weight, self.bias, self.scale, self.to_zero, out
            )  # fmt: skip
            return
        if maps.dtype != np.int8:
            spikes = np.empty(maps.shape, np.int8)
            self.kernel.fired(maps, threshold, spikes)
            maps = spikes
        self.kernel.requantise(self.product(maps), self.bias, self.scale, self.to_zero, out)

    def output_size(self, codes: Codes) -> tuple[int, int, int]:
        """B, H, W."""
        batch, height, width, _ = codes.shape
        if self.pointwise:
            return batch, height, width
        (rows, across), (down, right), (above, left) = self.kernel_size, self.stride, self.padding
        return batch, (height + 2 * above - rows) // down + 1, (width + 2 * left - across) // right + 1

    def pixels(self, codes: Codes) -> Array:
        """The inputs of a pointwise convolution, (pixels, K), int8."""
        return codes.view(np.int8).reshape(-1, len(self.weight))

    def columns(self, codes: Codes, size: tuple[int, int, int]) -> Iterator[tuple[int, Array]]:
        """What lies under the kernel at every output pixel, less the code of 0, (pixels, K), int8, some pixels at a time,
        and the number of the first."""
        if self.pointwise:
            yield 0, self.pixels(codes)
            return
        inputs, (batch, high, wide) = len(self.weight), size
        lines = max(1, COLUMNS // (wide * inputs))
        for first in range(0, batch * high, lines):
            out = np.empty(min(lines, batch * high - first) * wide * inputs, np.int8)
            self.kernel.columns(
                codes, self.from_zero, self.kernel_size, self.stride, self.padding, (high, wide), inputs, first, out
            )
            yield first * wide, out.reshape(-1, inputs)


def filled(values: Array, axis: int = -1, value: int = 0) -> Array:
    """An array with more elements of one value along an axis, as many as make its length a multiple of 32."""
    more = [(0, 0)] * values.ndim
    more[axis] = (0, -values.shape[axis] % LANES)
    return np.ascontiguousarray(np.pad(values, more, constant_values=value))


def _threshold(bias: Array, scale: Array) -> NDArray[np.int32]:
    """The largest sum, int32, whose code ``round((sum + bias) * scale)`` is below 1, for each channel; by bisection."""
    below, above = np.full(len(bias), -(2**31), np.int64), np.full(len(bias), 2**31 - 1, np.int64)
    for _ in range(32):
        middle = (below + above) // 2
        fires = np.rint((middle + bias).astype(np.float32) * scale) >= 1
        below, above = np.where(fires, below, middle), np.where(fires, middle, above)
    return below.astype(np.int32)


def channels_last(x: Array) -> Array:
    """(..., C, H, W) to (..., H, W, C), contiguous."""
    return np.ascontiguousarray(np.moveaxis(x, -3, -1))


def quantised(step: np.float32, zero: int, picture: Floats) -> Codes:
    """Codes of numbers."""
    out = np.empty(picture.shape, np.uint8)
    compiled().quantise(picture.reshape(-1), step, zero, out.reshape(-1))
    return out


def spikes_of(threshold: np.float32, potential: Floats) -> Codes:
    """1 where the potential is at the threshold or above, and 0 elsewhere."""
    out = np.empty(potential.shape, np.uint8)
    compiled().spikes(potential.reshape(-1), threshold, out.reshape(-1))
    return out


def numbers(zero: int, step: np.float32, times: int, size: tuple[int, int] | None, *maps: Array) -> Floats:
    """``(codes - zero) * step``, added to a potential where there is one.

    Args:
        zero, step: code of 0, and what one step is.
        times: how often every pixel of the codes stands in each direction.
        size: height and width of what is given, where they are less than that makes.
        maps: the codes, or a potential and the codes.
    """
    *potential, codes = maps
    batch, height, width, channels = codes.shape
    out = np.empty((batch, *(size or (times * height, times * width)), channels), np.float32)
    compiled().numbers(codes, zero, step, times, potential[0].reshape(-1) if potential else None, out)
    return out


@cache
def compiled() -> Any:
    """The loops: those that Numba compiles, or without it dense ones."""
    try:
        return import_module("trevsnn.deploy.int8.loops_numba")
    except ImportError:
        warnings.warn(
            "Numba is not installed: the spike-driven engine is dense and slow, with the same results; "
            "pip install 'trevsnn[deploy]'.", stacklevel=2,
        )  # fmt: skip
        return import_module("trevsnn.deploy.int8.loops_numpy")


def set_threads() -> None:
    """Let the loops run in as many threads as PyTorch now has."""
    if compiled().__name__ == "trevsnn.deploy.int8.loops_numpy":
        return
    numba, threads = import_module("numba"), torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(threads)  # both may use one OpenMP, whose number Numba's start sets to all processors
