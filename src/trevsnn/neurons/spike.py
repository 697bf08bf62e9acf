"""Binary spikes with a rectangular surrogate, and the 2-bit codes that are all a backward pass needs of a state.

Comparisons are written so that they give numbers of the operand's own dtype: on a CPU those run vectorised, while
comparisons that give booleans, and products with booleans, are five to ten times slower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from trevsnn.neurons.fire import fire, fire_, just_above, just_below, rounded
from trevsnn.neurons.tried_kernels import kernels_for

_PACK_ELEMENTS = 2**21  # at a time, so that the floats in between stay small


@dataclass(frozen=True)
class Spike:
    """``s(v) = 1 if v >= threshold else 0`` with the surrogate ``ds/dv = height on low <= v <= high, else 0``.

    NaN stays NaN, and may let a gradient pass. The second derivative is 0. The default is T-RevSNN's neuron (Hu et al.,
    ICML 2024). Whatever the numbers, threshold and window cut the potentials into ranges of four kinds, so that a code
    takes 2 bits.

    Attributes:
        threshold: may lie outside of the window. It and the window's ends are rounded to a potential's dtype.
        low: the lower end of the surrogate's window, which belongs to it.
        high: its upper end, likewise.
        height: of the surrogate there.

    Raises:
        TypeError: something else than a number.
        ValueError: a number is not finite, or low is above high.
    """

    threshold: float = 0.5
    low: float = 0.0
    high: float = 1.0
    height: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float):
                raise TypeError(f"Spike: {field.name} is a {type(value).__name__}; give a number.")
            if not math.isfinite(value):
                raise ValueError(f"Spike: {field.name} is {value}; give a finite number.")
        if self.low > self.high:
            raise ValueError(
                f"Spike: low is {self.low}, above high, {self.high}; give the lower end of the window first."
            )

    def __call__(self, potential: Tensor) -> Tensor:
        """s(v), for autograd and ``torch.func``; ``dL/dv = height * dL/ds`` where low <= v <= high, and 0 elsewhere.

        Args:
            potential: v, any shape, floating point.

        Returns:
            Zeros and ones, and NaN where the potential is, of the same shape and dtype.
        """
        return _Spike.apply(potential, self.threshold, self.low, self.high, self.height)  # type: ignore[no-any-return]

    def fire(self, potential: Tensor) -> Tensor:
        """s(v) outside autograd."""
        return fire(potential, self.threshold)

    def spikes(self, potential: Tensor, dtype: torch.dtype) -> Tensor:
        """s(v) as zeros and ones of ``dtype``, outside autograd."""
        if _is_dense(potential) and (kernels := kernels_for(potential)):
            out = torch.empty_like(potential, dtype=dtype)
            return kernels.fire(potential, rounded(self.threshold, potential.dtype), out)
        return self.fire(potential).to(dtype)

    def fire_(self, potential: Tensor) -> Tensor:
        """s(v) in place, outside autograd."""
        if _is_dense(potential) and (kernels := kernels_for(potential)):
            return kernels.fire(potential, rounded(self.threshold, potential.dtype), potential)
        return fire_(potential, self.threshold)

    def pull_back(self, potential: Tensor, gradient: Tensor) -> Tensor:
        """``(ds/dv)^T gradient``, of the gradient's dtype, outside autograd."""
        if gradient.dtype == potential.dtype:
            through = _in_window(gradient, potential, self.low, self.high)
        else:
            through = self._window(potential).to(gradient.dtype).mul_(gradient)
        return through if self.height == 1 else through.mul_(self.height)

    def window(self, potential: Tensor) -> Tensor:
        """Whether low <= v <= high, bool; NaN is not."""
        return self._window(potential).to(torch.bool)

    def _window(self, potential: Tensor) -> Tensor:
        return potential.clamp(self.low, self.high).eq_(potential)

    def code(self, state: Tensor) -> PackedState:
        """The code of a state of any shape, floating point; see :class:`PackedState`."""
        return _pack(self, state)

    def bits(self, dtype: torch.dtype) -> int:
        """How many bits a code takes for each neuron and timestep: 2, whatever the state's dtype."""
        return 2


class _Spike(torch.autograd.Function):
    """s(v) and its surrogate gradient, one operation back: keeping the potential costs a byte per element more in bfloat16
    than keeping whether it lies in the window, and takes a third of the time."""

    @staticmethod
    def forward(potential: Tensor, threshold: float, low: float, high: float, height: float) -> Tensor:
        return fire(potential, threshold)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        potential, _, *ctx.surrogate = inputs
        ctx.save_for_backward(potential)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """``dL/dv = ds/dv * dL/ds``, itself differentiable."""
        (potential,), (low, high, height) = ctx.saved_tensors, ctx.surrogate
        through = _in_window(grad_outputs[0], potential, low, high)
        return through if height == 1 else through * height, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, int | None]:
        """Element by element, so an axis more changes nothing; :func:`fire`, which looks at the data, never sees it."""
        return _Spike.apply(*args), in_dims[0]


@dataclass(frozen=True)
class PackedState:
    """The 2-bit codes of a state, a row of bytes for each of its first axis, and how to lay it out again.

    Of each element it holds s(v) and whether v lies in the surrogate's window. A function that looks at a state only
    through its neuron has the same value, bit for bit, and the same gradient on the state and on ``decode()``, in 1/16 of
    the bytes of a float32 state. NaN is held as a neuron that is silent and outside of the window.

    Attributes:
        neuron: whose threshold and window were looked at.
        bits: uint8; for each row of the first axis a quarter of its elements, rounded up.
        shape: ``torch.Size``, of the state.
        dtype: of the state.
        memory_format: of the state, contiguous or channels-last.
    """

    neuron: Spike
    bits: Tensor
    shape: torch.Size
    dtype: torch.dtype
    memory_format: torch.memory_format

    def __getitem__(self, rows: slice) -> PackedState:
        """The codes of some rows of the first axis (those of a state with two axes at least)."""
        bits = self.bits[rows]
        return replace(self, bits=bits, shape=torch.Size((bits.shape[0], *self.shape[1:])))

    def seen(self) -> Tensor:
        """s(v), zeros and ones of the state's dtype and memory layout."""
        return self.spikes(self.dtype)

    def pull_back(self, gradient: Tensor) -> Tensor:
        """``(ds/dv)^T gradient = height * window * gradient``, of the gradient's dtype."""
        if gradient.shape == self.shape and _memory_format(gradient) is self.memory_format:
            through = self._bit(1, gradient.dtype, gradient)
        else:
            through = self.window(gradient.dtype).mul_(gradient)
        return through if self.neuron.height == 1 else through.mul_(self.neuron.height)

    def decode(self) -> Tensor:
        """A state with one number for each of the four codes, of the packed one's shape, dtype and memory layout."""
        neuron, spikes = self.neuron, self.spikes(self.dtype)
        least, most = min(neuron.low, neuron.threshold), max(neuron.high, neuron.threshold)
        # Where a silent v lies in the window, low is one, and where a firing one does, high is.
        inside = _choose(neuron.low, neuron.high, spikes)
        outside = _choose(least - abs(least) - 1, most + abs(most) + 1, spikes)
        return torch.lerp(outside, inside, self.window(self.dtype))  # one or the other, exactly

    def spikes(self, dtype: torch.dtype) -> Tensor:
        """s(v) as zeros and ones of ``dtype``."""
        return self._bit(0, dtype)

    def window(self, dtype: torch.dtype) -> Tensor:
        """Whether low <= v <= high, as zeros and ones of ``dtype``."""
        return self._bit(1, dtype)

    def _bit(self, place: int, dtype: torch.dtype, times: Tensor | None = None) -> Tensor:
        """One bit of each code as a number, or times a tensor of the state's shape and layout."""
        elements = self.shape.numel() // max(1, self.bits.shape[0])
        if kernels := kernels_for(self.bits, dtype):
            rows = None if times is None else _rows(times).contiguous()
            return self._laid_out(kernels.decode(self.bits, elements, place, dtype, rows))
        shifts = torch.arange(place, 8, 2, dtype=torch.uint8, device=self.bits.device).view(4, 1)
        rows = (self.bits[:, None] >> shifts).bitwise_and_(1).flatten(1)
        # What is left fills a row's last byte.
        values = self._laid_out(rows[:, :elements].to(dtype, memory_format=torch.contiguous_format))
        return values if times is None else values.mul_(times)

    def _laid_out(self, rows: Tensor) -> Tensor:
        if self.memory_format is torch.channels_last:
            batch, channels, height, width = self.shape
            return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return rows.reshape(self.shape)


def _pack(neuron: Spike, state: Tensor) -> PackedState:
    """A code is s(v) plus twice whether v lies in the window. Every row of the first axis takes a quarter of its elements
    in bytes, rounded up."""
    rows = _rows(state)
    if kernels := kernels_for(state):
        bounds = (rounded(bound, state.dtype) for bound in (neuron.threshold, neuron.low, neuron.high))
        bits = kernels.code(rows.contiguous(), *bounds)
    else:
        at_a_time = max(1, _PACK_ELEMENTS // max(1, rows.shape[1]))
        parts = [_pack_rows(neuron, part) for part in rows.split(at_a_time)]
        bits = parts[0] if len(parts) == 1 else torch.cat(parts)
    return PackedState(neuron, bits, state.shape, state.dtype, _memory_format(state))


def _pack_rows(neuron: Spike, rows: Tensor) -> Tensor:
    # Bool's and uint8's zeros and ones are the same.
    numbers = neuron._window(rows)
    codes = numbers.to(torch.bool).view(torch.uint8)
    spikes = torch.ge(rows, neuron.threshold, out=numbers).to(torch.bool).view(torch.uint8)
    codes.add_(codes).bitwise_or_(spikes)
    quarter = -(-codes.shape[1] // 4)
    if codes.shape[1] != 4 * quarter:
        codes = torch.nn.functional.pad(codes, (0, 4 * quarter - codes.shape[1]))
    # Element i shares its byte with i + quarter, i + 2 quarter, ...: every operation is on contiguous pieces.
    *lower, bits = codes.unflatten(1, (4, quarter)).unbind(1)
    bits = bits.clone()
    for lane in reversed(lower):
        bits.bitwise_left_shift_(2).bitwise_or_(lane)
    return bits


def _choose(at_zero: float, at_one: float, where: Tensor) -> Tensor:
    """``a - a x + b x`` for zeros and ones x: one of two numbers, exactly."""
    at_zero, at_one = rounded(at_zero, where.dtype), rounded(at_one, where.dtype)
    return torch.rsub(where, at_zero, alpha=at_zero).add_(where, alpha=at_one)


def _in_window(gradient: Tensor, potential: Tensor, low: float, high: float) -> Tensor:
    """The gradient where low <= v <= high, else 0, in one pass. PyTorch's window is open, hence the neighbours."""
    dtype = potential.dtype
    return torch.ops.aten.hardtanh_backward(gradient, potential, just_below(low, dtype), just_above(high, dtype))


def _rows(state: Tensor) -> Tensor:
    """A row for each of the first axis, in the order of memory; one row of a state with fewer than two axes."""
    rows = state.permute(0, 2, 3, 1) if _memory_format(state) is torch.channels_last else state
    return rows.flatten(1) if state.dim() > 1 else rows.reshape(1, -1)


def _is_dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)


def _memory_format(tensor: Tensor) -> torch.memory_format:
    if tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
