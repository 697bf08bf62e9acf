"""Spikes with a surrogate of any shape, and three such shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from trevsnn.neurons.fire import fire

#: From ``v - threshold``, any shape, floating point, to ds/dv, of its shape and dtype, in plain torch operations and element by
#: element.
Derivative = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SurrogateSpike:
    """``s(v) = 1 if v >= threshold else 0`` with the surrogate ``ds/dv = derivative(v - threshold)``.

    NaN stays NaN. The second derivative is that of ``derivative``. The surrogate takes as many values as the potential,
    so nothing shorter than the state holds it exactly: a code is the state itself.

    Attributes:
        threshold: rounded to a potential's dtype.
        derivative: such as :func:`atan`, :func:`sigmoid` or :func:`triangle`; without parameters to train.

    Raises:
        TypeError: the threshold is no number; the derivative gives no tensor of its argument's shape.
        ValueError: the threshold is not finite; the derivative has parameters to train.
    """

    threshold: float
    derivative: Derivative
    keeps_state: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.threshold, int | float):
            raise TypeError(f"SurrogateSpike: threshold is a {type(self.threshold).__name__}; give a number.")
        if not math.isfinite(self.threshold):
            raise ValueError(f"SurrogateSpike: threshold is {self.threshold}; give a finite number.")
        slope = self.derivative(torch.zeros(2))
        if not isinstance(slope, Tensor) or slope.shape != (2,):
            raise TypeError(
                "SurrogateSpike: derivative gives no tensor of its argument's shape; give a function of v - threshold, such as "
                "atan(), with its brackets."
            )
        if slope.requires_grad:
            raise ValueError(
                "SurrogateSpike: derivative has parameters to train, which would get no gradient; detach them."
            )

    def __call__(self, potential: Tensor) -> Tensor:
        """s(v), for autograd and ``torch.func``: ``spikes = SurrogateSpike(0.5, atan())(v)``.

        The gradient is the surrogate's, ``dL/dv = derivative(v - threshold) * dL/ds``. It can itself be differentiated.

        Args:
            potential: v, any shape, floating point.

        Returns:
            Zeros and ones, and NaN where the potential is, of the same shape and dtype.
        """
        return _SurrogateSpike.apply(potential, self.threshold, self.derivative)  # type: ignore[no-any-return]

    def code(self, state: Tensor) -> KeptState:
        """The state itself, any shape, floating point; it must not change as long as the code is in use."""
        return KeptState(self, state.detach())

    def bits(self, dtype: torch.dtype) -> int:
        """How many bits a code takes for each neuron and timestep: those of the state's dtype."""
        return torch.finfo(dtype).bits


class _SurrogateSpike(torch.autograd.Function):
    @staticmethod
    def forward(potential: Tensor, threshold: float, derivative: Derivative) -> Tensor:
        return fire(potential, threshold)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        potential, ctx.threshold, ctx.derivative = inputs
        ctx.save_for_backward(potential)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """``dL/dv = derivative(v - threshold) * dL/ds``, itself differentiable."""
        (potential,) = ctx.saved_tensors
        return grad_outputs[0] * ctx.derivative(potential - ctx.threshold), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, int | None]:
        """Element by element, so an axis more changes nothing; :func:`fire`, which looks at the data, never sees it."""
        return _SurrogateSpike.apply(*args), in_dims[0]


@dataclass(frozen=True)
class KeptState:
    """A state as its own code, beside the neuron through which it is seen.

    Attributes:
        neuron: through which it is seen.
        state: of any shape, floating point.
    """

    neuron: SurrogateSpike
    state: Tensor

    @property
    def shape(self) -> torch.Size:
        """``torch.Size``, of the state."""
        return self.state.shape

    @property
    def dtype(self) -> torch.dtype:
        """Of the state."""
        return self.state.dtype

    def __getitem__(self, rows: slice) -> KeptState:
        """The code of some rows of the first axis."""
        return replace(self, state=self.state[rows])

    def decode(self) -> Tensor:
        """The state."""
        return self.state

    @torch.no_grad()
    def seen(self) -> Tensor:
        """s(v), zeros and ones of the state's dtype and memory layout."""
        return fire(self.state, self.neuron.threshold)

    @torch.no_grad()
    def pull_back(self, gradient: Tensor) -> Tensor:
        """``(ds/dv)^T gradient = derivative(v - threshold) * gradient``, of the gradient's dtype."""
        return gradient * self.neuron.derivative(self.state - self.neuron.threshold).to(gradient.dtype)


def atan(alpha: float = 2.0) -> Derivative:
    """``alpha / 2 / (1 + (pi / 2 alpha x)^2)``, the derivative of ``arctan(pi / 2 alpha x) / pi``.

    Source: Fang et al., "Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking Neural
    Networks", ICCV 2021.
    """
    return partial(_atan, alpha=alpha)


def sigmoid(alpha: float = 4.0) -> Derivative:
    """``alpha y (1 - y)`` with ``y = 1 / (1 + exp(-alpha x))``, the derivative of y.

    Source: Neftci, Mostafa and Zenke, "Surrogate Gradient Learning in Spiking Neural Networks", IEEE Signal Processing
    Magazine, 2019.
    """
    return partial(_sigmoid, alpha=alpha)


def triangle(width: float = 1.0) -> Derivative:
    """``max(0, 1 - |x| / width) / width``, a triangle of area 1 over ``|x| <= width``.

    Source: Esser et al., "Convolutional networks for fast, energy-efficient neuromorphic computing", PNAS 2016.
    """
    return partial(_triangle, width=width)


# At the top of the module, so that a neuron can be pickled with its network.
def _atan(x: Tensor, alpha: float) -> Tensor:
    return alpha / 2 / (1 + (math.pi / 2 * alpha * x).square())


def _sigmoid(x: Tensor, alpha: float) -> Tensor:
    y = torch.sigmoid(alpha * x)
    return alpha * y * (1 - y)


def _triangle(x: Tensor, width: float) -> Tensor:
    return (1 - x.abs() / width).clamp_min(0) / width
