"""Convolutions in 8-bit arithmetic on a CPU, dense or spike-driven, in the integers that ONNX's QLinearConv defines.

Maps are codes (B, H, W, C), uint8. The loops are in :mod:`trevsnn.deploy.kernel`, dense matrix products PyTorch's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from trevsnn.deploy.extras import require

LANES = 64  # of the kernels: inputs and outputs of a matrix are filled up to a multiple of it
PART = 2**18  # hidden neurons computed at a time, whose sums fit a cache of 1 MiB


@dataclass(frozen=True)
class Columns:
    """Inputs of the output pixels of a convolution.

    Attributes:
        maps: (pixels, K), int8.
        size: of the output: B, H, W.
    """

    maps: Tensor
    size: tuple[int, int, int]

    @property
    def threshold(self) -> Tensor:
        """What spikes are above, (K,)."""
        return torch.zeros(self.maps.shape[1], dtype=torch.int8)

    def parts(self) -> Iterator[Tensor]:
        """The maps, some pixels at a time."""
        yield self.maps


@dataclass(frozen=True)
class Hidden:
    """Spikes of the hidden neurons between PW1 and PW2: where PW1's sums are above a threshold.

    There are so many of them that they are computed where they are used, some pixels at a time.

    Attributes:
        inputs: PW1's.
        matrix: PW1's weights, (K, N), int8.
        threshold: of the sums, (N,), int32.
    """

    inputs: Columns
    matrix: Tensor
    threshold: Tensor

    @property
    def size(self) -> tuple[int, int, int]:
        return self.inputs.size

    def parts(self) -> Iterator[Tensor]:
        """PW1's sums, (pixels, N), int32, some pixels at a time; each is valid until the next is asked for."""
        maps, hidden = self.inputs.maps, self.matrix.shape[1]
        pixels = max(256, PART // hidden)  # of fewer a product is slow
        sums = torch.empty(min(pixels, len(maps)), hidden, dtype=torch.int32)
        for part in maps.split(pixels):
            yield _product(part, self.matrix, sums[: len(part)])


class IntegerDepthwise:
    """DW1 or DW2, 3 x 3, stride 1: codes to codes of the same size.

    Args:
        constants: QLinearConv's inputs after the first: scale and zero of the input, weight, its scale and zero, scale and
            zero of the output, bias. Scales of maps are 1, zeros of weights 0.
        spiking: the input is 0 and 1.
    """

    def __init__(self, constants: list[NDArray[Any]], *, spiking: bool) -> None:
        _, from_zero, weight, self.scale, _, _, to_zero, bias = constants
        weight_33C = weight[:, 0].transpose(1, 2, 0)
        self.weight = np.ascontiguousarray(weight_33C, np.int16 if spiking else np.float32)
        # Padded with the code of 0, all pixels have nine taps, and what the code adds is the same for all.
        self.bias = bias - np.int32(from_zero) * weight_33C.sum((0, 1), np.int32)
        self.from_zero, self.to_zero = int(from_zero), int(to_zero)

    def __call__(self, codes: Tensor) -> Tensor:
        out = torch.empty_like(codes)
        compiled().depthwise(
            codes.numpy(), self.from_zero, self.weight, self.bias, self.scale, self.to_zero, out.numpy()
        )
        return out


class IntegerConv:
    """A convolution without groups: codes or hidden spikes to codes, or to hidden spikes.

    Args:
        constants: as :class:`IntegerDepthwise`.
        attributes: QLinearConv's, with ``strides`` and ``pads``.
        crossover: firing rate of a spiking input from which on it is computed densely.
        spiking: the input is 0 and 1.
        firing: hidden neurons follow, which fire where the code is 1 or more.

    Attributes:
        rate: firing rate of a spiking input in the first call, which later ones go by; None before it.
    """

    def __init__(
        self,
        constants: list[NDArray[Any]],
        attributes: dict[str, Any],
        crossover: float,
        *,
        spiking: bool,
        firing: bool,
    ) -> None:
        _, from_zero, weight_NCHW, self.scale, _, _, to_zero, self.bias = constants
        self.from_zero, self.to_zero = int(from_zero), int(to_zero)
        self.kernel_size = weight_NCHW.shape[2:]
        self.stride, self.padding = tuple(attributes["strides"]), tuple(attributes["pads"][:2])
        self.inputs = weight_NCHW[0].size
        more = -len(weight_NCHW) % LANES
        matrix = torch.from_numpy(np.array(weight_NCHW)).permute(2, 3, 1, 0).flatten(0, 2)
        self.matrix = pad(matrix, (0, more, 0, -self.inputs % LANES)).contiguous()
        self.threshold: Tensor | None = None
        if firing:
            never = 2**31 - 1
            self.threshold = pad(torch.from_numpy(_threshold(self.bias, self.scale)), (0, more), value=never)
        self.spiking, self.crossover = spiking, crossover
        self.rate: float | None = None

    def __call__(self, x: Tensor | Hidden) -> Tensor | Hidden:
        inputs = self.columns(x) if isinstance(x, Tensor) else x
        if self.threshold is not None:
            assert isinstance(inputs, Columns)
            return Hidden(inputs, self.matrix, self.threshold)
        out = torch.empty(*inputs.size, len(self.bias), dtype=torch.uint8)
        pixels, threshold = out.flatten(0, 2), inputs.threshold
        if self.spiking and self.rate is None:
            active = sum(int((part > threshold).sum()) for part in inputs.parts())
            self.rate = active / (len(pixels) * self.inputs)
        done = 0
        for part in inputs.parts():
            self.fill(pixels[done : done + len(part)], part, threshold)
            done += len(part)
        return out

    def fill(self, out: Tensor, maps: Tensor, threshold: Tensor) -> None:
        """Codes of some pixels, (pixels, N), of their inputs, (pixels, K), which if spiking are 1 above the threshold."""
        kernel = compiled()
        codes = self.bias, self.scale, self.to_zero, out.numpy()
        if self.rate is not None and self.rate < self.crossover:
            kernel.accumulate(maps.numpy(), threshold.numpy(), self.matrix.numpy(), *codes)
            return
        if maps.dtype != torch.int8:
            spikes = torch.empty(maps.shape, dtype=torch.int8)
            kernel.fired(maps.numpy(), threshold.numpy(), spikes.numpy())
            maps = spikes
        kernel.requantise(_product(maps, self.matrix).numpy(), *codes)

    def columns(self, codes: Tensor) -> Columns:
        """What lies under the kernel at every output pixel, less the code of 0."""
        batch, height, width, channels = codes.shape
        high, wide = (
            (n + 2 * p - k) // s + 1
            for n, p, k, s in zip((height, width), self.padding, self.kernel_size, self.stride, strict=True)
        )
        if self.kernel_size == (1, 1) and self.stride == (1, 1) and channels % LANES == 0 and self.from_zero == 0:
            return Columns(codes.view(torch.int8).flatten(0, 2), (batch, high, wide))
        out = torch.zeros(batch, high, wide, len(self.matrix), dtype=torch.int8)
        compiled().columns(codes.numpy(), self.from_zero, self.kernel_size, self.stride, self.padding, out.numpy())
        return Columns(out.flatten(0, 2), (batch, high, wide))


def _threshold(bias: NDArray[Any], scale: NDArray[Any]) -> NDArray[Any]:
    """The largest sum, int32, whose code ``round((sum + bias) * scale)`` is below 1, for each channel; by bisection."""
    below, above = np.full(len(bias), -(2**31), np.int64), np.full(len(bias), 2**31 - 1, np.int64)
    for _ in range(32):
        middle = (below + above) // 2
        fires = np.rint((middle + bias).astype(np.float32) * scale) >= 1
        below, above = np.where(fires, below, middle), np.where(fires, middle, above)
    return below.astype(np.int32)


def _product(maps: Tensor, matrix: Tensor, out: Tensor | None = None) -> Tensor:
    """The exact product of two int8 matrices, int32."""
    if _integer_product_is_exact():
        return torch._int_mm(maps, matrix, out=out)
    return (maps.float() @ matrix.float()).int()  # exact up to 2^24, which 127 * 127 * 1,040 inputs do not reach


@cache
def _integer_product_is_exact() -> bool:
    """Whether this processor adds up products of 8 bits without running over, as some without VNNI do."""
    ones = torch.ones(64, 64, dtype=torch.int8)
    return all(bool((torch._int_mm(a * ones, b * ones) == 64 * a * b).all()) for a in (127, -128) for b in (127, -127))


def channels_last(x: Tensor) -> Tensor:
    """(..., C, H, W) to (..., H, W, C), contiguous."""
    return x.movedim(-3, -1).contiguous()


def fires(potential: Tensor, threshold: float) -> Tensor:
    """1 where the potential, float32, is at the threshold or above, and 0 elsewhere, uint8."""
    out = torch.empty(potential.shape, dtype=torch.uint8)
    compiled().fires(potential.view(-1).numpy(), np.float32(threshold), out.view(-1).numpy())
    return out


def add_numbers(step: float, zero: float, potential: Tensor, codes: Tensor) -> Tensor:
    """``potential + (codes - zero) * step``, float32."""
    out = torch.empty_like(potential)
    compiled().add_numbers(
        potential.view(-1).numpy(), codes.view(-1).numpy(), np.float32(zero), np.float32(step), out.view(-1).numpy()
    )
    return out


@cache
def compiled() -> Any:
    """The kernels. Raises UsageError: Numba is not installed."""
    require("numba")
    return require("trevsnn.deploy.kernel")


def set_threads() -> None:
    """Let the kernels run in as many threads as PyTorch now has."""
    numba = require("numba")
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(threads)  # both may use one OpenMP, whose number Numba's start sets to all processors
