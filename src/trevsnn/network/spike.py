"""T-RevSNN's neuron: fires from 0.5 on, with the surrogate 1 on 0 <= v <= 1 (Hu et al., ICML 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from trevsnn.neurons import PackedState, Spike

THRESHOLD = 0.5
SPIKE = Spike(THRESHOLD, low=0.0, high=1.0)


def spike(potential: Tensor) -> Tensor:
    """``s(v) = 1 if v >= 0.5 else 0``, of any shape and floating dtype; see :class:`trevsnn.neurons.Spike`."""
    return SPIKE(potential)


def pack(state: Tensor) -> PackedState:
    """The 2-bit code of a state of any shape, floating point; see :class:`trevsnn.neurons.PackedState`."""
    return SPIKE.code(state)


def spikes_of(state: Tensor | PackedState, dtype: torch.dtype) -> Tensor:
    """s(v) of a state or of its code as zeros and ones of ``dtype``, outside autograd."""
    return state.spikes(dtype) if isinstance(state, PackedState) else SPIKE.spikes(state, dtype)


def pull_back(state: Tensor | PackedState, gradient: Tensor) -> Tensor:
    """``(ds/dv)^T gradient``, of the gradient's dtype, for a state or its code, outside autograd."""
    return state.pull_back(gradient) if isinstance(state, PackedState) else SPIKE.pull_back(state, gradient)
