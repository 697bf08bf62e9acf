"""What torch.compile and torch.export are shown of a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from trevsnn.backprop import Backprop

Value = TypeVar("Value")
Pass = TypeVar("Pass", bound=Callable[..., Any])


def is_exporting() -> bool:
    """Whether torch.export, or an ONNX export, is tracing; such a program has no backward pass.

    :func:`torch.compiler.is_exporting` says so under torch.compile, too, in PyTorch 2.11.
    """
    return torch.compiler._is_exporting_flag


def is_left_alone(backprop: Backprop, device: torch.device) -> bool:
    """Whether torch.compile, which is tracing, is to leave a pass as it is.

    With gradients it is shown no more than ``autograd`` on an accelerator: the other modes have a backward pass of their own, and
    on a CPU, whose time goes into convolutions that it cannot make faster, it would lose the slices that fit into the cache.
    """
    training = torch.compiler.is_compiling() and torch.is_grad_enabled() and not is_exporting()
    return training and (backprop != "autograd" or device.type == "cpu")


@torch.compiler.disable(
    reason="trevsnn runs its training passes as they are, except in backprop='autograd' on an accelerator: leave out "
    "fullgraph=True, or torch.compile"
)
def as_it_is(function: Callable[..., Value], *arguments: object) -> Value:
    """``function(*arguments)``, where torch.compile breaks its graph."""
    return function(*arguments)


def hidden_from_compiler(function: Pass) -> Pass:
    """A pass that torch.compile does not look into: a backward pass, too, which autograd calls from a step compiled as a whole."""
    return torch.compiler.disable(function)  # type: ignore[return-value]
