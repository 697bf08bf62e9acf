"""The threshold of a potential, and the numbers of a dtype on either side of a bound."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_keep_above = torch.ops.aten.threshold_backward  # (x, v, bound): 0 where v <= bound, else x


def fire(potential: Tensor, threshold: float) -> Tensor:
    """``s(v) = 1 if v >= threshold else 0``, and NaN where v is NaN.

    An infinite potential is a number like any other. NaN has to stay: a network of NaN weights whose neurons were merely
    silent would answer with some class as if nothing were.

    Args:
        potential: v, any shape, floating point, not batched by ``torch.vmap``.
        threshold: rounded to the potential's dtype.

    Returns:
        Zeros, ones and NaN of the same shape, dtype and memory layout, outside autograd.
    """
    potential = potential.detach()
    if _holds_no_nan(potential):
        return torch.ge(potential, threshold, out=torch.empty_like(potential))
    return _keep_above(potential.clamp(1, 1), potential, just_below(threshold, potential.dtype))


def fire_(potential: Tensor, threshold: float) -> Tensor:
    """:func:`fire` in place, of a potential without a graph."""
    if _holds_no_nan(potential):
        return potential.ge_(threshold)
    return potential.copy_(_keep_above(potential.clamp(1, 1), potential, just_below(threshold, potential.dtype)))


def _holds_no_nan(potential: Tensor) -> bool:
    """Whether a look at the data says so, which pays where it is cheap.

    A sum with a NaN in it is NaN. On a CPU it takes a third of what the second elementwise pass takes that keeps NaN: 1 is
    ``clamp(1, 1)`` of every number, and NaN that of NaN. An accelerator would have to wait for the answer, and a compiler
    or a fake tensor has none.
    """
    plain = type(potential) is Tensor and potential.device.type == "cpu" and not torch.compiler.is_compiling()
    return plain and not potential.sum().isnan()


def just_below(bound: float, dtype: torch.dtype) -> float:
    """The next smaller number of ``dtype``: ``v > just_below(b)`` says ``v >= b`` for b rounded to dtype.

    In plain Python, so that it is a constant to compilers and under fake tensors.
    """
    info = torch.finfo(dtype)

    def spacing(x: float) -> float:
        return max(math.ldexp(info.eps, math.frexp(x)[1] - 1), info.tiny * info.eps)

    rounded = round(bound / spacing(bound)) * spacing(bound)
    less = math.nextafter(rounded, -math.inf)
    return math.floor(less / spacing(less)) * spacing(less)


def just_above(bound: float, dtype: torch.dtype) -> float:
    """The next larger number of ``dtype``."""
    return -just_below(-bound, dtype)
