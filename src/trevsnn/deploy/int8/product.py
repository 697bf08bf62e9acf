"""Exact products of 8-bit matrices: the fastest of PyTorch's that is exact on this processor."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PACKED = 2**17  # weights in a matrix from which on prepacking, their arrangement for the processor, pays


class IntegerProduct:
    """``product[p, n] = sum over k of maps[p, k] * weight[k, n]``, exact.

    Args:
        weight: (K, N), int8.
        signed: the maps hold numbers below 0; else they hold 0 to 127.

    Attributes:
        dtype: of the products: int32, or float32 of whole numbers.
        packed: the weight is prepacked.
    """

    def __init__(self, weight: NDArray[np.int8], *, signed: bool = False) -> None:
        matrix = torch.from_numpy(weight)
        if weight.size >= PACKED and not signed and _packed_is_exact():
            self.packed, self.matrix, self.dtype = True, _pack(matrix), np.dtype(np.float32)
            self.ones, self.zeros = torch.ones(len(weight[0])), torch.zeros(len(weight[0]), dtype=torch.int32)
        elif _integer_is_exact():
            self.packed, self.matrix, self.dtype = False, matrix, np.dtype(np.int32)
        else:  # in float32, exact up to 2^24: sums of at least 1,040 products of 127 * 127
            self.packed, self.matrix, self.dtype = False, matrix.float(), np.dtype(np.float32)

    def __call__(self, maps: NDArray[np.int8]) -> NDArray[Any]:
        """(pixels, K), int8, to (pixels, N)."""
        inputs = torch.from_numpy(maps)
        if self.packed:
            return _packed_product(inputs, self.matrix, self.ones, self.zeros).numpy()
        if self.dtype == np.int32:
            return torch._int_mm(inputs, self.matrix).numpy()
        return (inputs.float() @ self.matrix).numpy()


def _pack(matrix: Tensor) -> Tensor:
    """(K, N), int8, in the layout that oneDNN chooses."""
    return torch.ops.onednn.qlinear_prepack(matrix.T.contiguous(), None)


def _packed_product(inputs: Tensor, packed: Tensor, ones: Tensor, zeros: Tensor) -> Tensor:
    """oneDNN's 8-bit linear map with scales of 1: its output, float32, is the product itself."""
    return torch.ops.onednn.qlinear_pointwise(
        inputs.view(torch.uint8), 1.0, 0, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


@cache
def _packed_is_exact() -> bool:
    """Whether this build of PyTorch has the product of prepacked weights, and its sums do not overflow."""
    inputs, weight = _extremes()
    try:
        ones, zeros = torch.ones(64), torch.zeros(64, dtype=torch.int32)
        product = _packed_product(inputs.abs(), _pack(weight), ones, zeros)
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(product, inputs.abs().float() @ weight.float())


@cache
def _integer_is_exact() -> bool:
    """Whether sums of products of 8 bits do not overflow, as they do on some processors without VNNI instructions."""
    inputs, weight = _extremes()
    return torch.equal(torch._int_mm(inputs, weight).float(), inputs.float() @ weight.float())


def _extremes() -> tuple[Tensor, Tensor]:
    """Inputs and weights, 64 x 64, int8, with the largest products of one sign next to each other."""
    rows = torch.tensor([127, -127, 127, -127], dtype=torch.int8).repeat_interleave(16)
    return rows[:, None].repeat(1, 64), rows.roll(16)[None].repeat(64, 1)
