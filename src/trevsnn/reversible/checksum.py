"""A few bytes by which a tensor that is computed a second time is known again."""

from __future__ import annotations

import torch
from torch import Tensor

from trevsnn.reversible.precision import widest

#: Columns of the sums: a prime, so that rows, channels or pictures that changed places change a sum.
_COLUMNS = 1021

#: Elements that are compared where bits may differ.
_SAMPLES = 64

#: How far, relative to the largest, they may lie apart there.
SAMPLE_TOLERANCE = 1e-3


class Checksum:
    """Of one tensor: a sum over all its bits, and 64 of its elements.

    The sum reads the tensor as integers of 64 bits, in the order of memory, in rows of 1021, adds the rows, and then the
    1021 sums with odd weights, all modulo 2^64: exact in any order. It keeps 8 bytes, 8 for each of the elements, and
    whether there is NaN. A tensor with NaN counts as the same as any other, since a code does not hold NaN.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.order = sorted(range(tensor.dim()), key=lambda axis: -tensor.stride(axis))
        self.bits = self._sum_of_bits(tensor)
        self.sum = tensor.detach().sum()
        self.samples = self._samples(tensor)

    def same(self, tensor: Tensor) -> bool:
        """Whether a tensor has the same bits, or this one held NaN."""
        return bool(torch.equal(self.bits, self._sum_of_bits(tensor))) or bool(self.sum.isnan())

    def distance(self, tensor: Tensor) -> float:
        """The largest difference of the elements, relative to the largest of them; NaN where only one is NaN."""
        before, now = self.samples, self._samples(tensor)
        difference = (before - now).abs().masked_fill((before == now) | (before.isnan() & now.isnan()), 0).max()
        largest = torch.stack([before, now]).abs().nan_to_num().max()
        return float(difference / largest.clamp_min(torch.finfo(largest.dtype).tiny))

    def _sum_of_bits(self, tensor: Tensor) -> Tensor:
        flat = self._flat(tensor)
        words = flat.numel() * flat.element_size() // 8 * 8 // flat.element_size()
        integers = flat[:words].view(torch.int64)
        rows = len(integers) // _COLUMNS
        sums = integers[: rows * _COLUMNS].view(rows, _COLUMNS).sum(0)
        rest = integers[rows * _COLUMNS :]
        sums[: len(rest)] += rest
        last = flat[words:].view(torch.uint8).to(torch.int64)
        weights = torch.arange(1, 2 * (_COLUMNS + len(last)), 2, device=tensor.device)
        return (torch.cat([sums, last]) * weights).sum()

    def _samples(self, tensor: Tensor) -> Tensor:
        flat = self._flat(tensor)
        some = flat[:: max(1, -(-len(flat) // _SAMPLES))] if len(flat) else flat.new_zeros(1)
        return some.to(widest(tensor.device))

    def _flat(self, tensor: Tensor) -> Tensor:
        """All elements in one axis, in the order that the first tensor had in memory, from an address that is a multiple of 8: not copied, where the tensor is dense."""
        flat = tensor.detach().permute(self.order).reshape(-1).contiguous()
        return flat.clone() if flat.storage_offset() * flat.element_size() % 8 else flat
