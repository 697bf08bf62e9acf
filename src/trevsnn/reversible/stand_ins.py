"""Where the graph of a replayed module begins and ends: what stands in for its arguments and parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from trevsnn.reversible.circumstances import Circumstances


class ReplayError(RuntimeError):
    """A module cannot be run a second time, or did not compute the same again."""


class Entry(torch.autograd.Function):
    """Where a value's gradient comes in; unlike ``torch.autograd.grad(value, ...)`` it lets go of the value itself."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, adjoint: Tensor) -> Tensor:
        ctx.adjoint, ctx.dtype = adjoint, value.dtype
        return value.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, None]:
        """y[l,t]."""
        return ctx.adjoint.to(ctx.dtype), None


class Fence(torch.autograd.Function):
    """The identity on the way into the first pass; what begins a graph may be changed in place behind it.

    ``source`` is where the tensor comes from, so that even a gradient of earlier parameters alone comes this way.
    """

    @staticmethod
    def forward(ctx: Any, name: str, tensor: Tensor, source: Tensor | None) -> Tensor:
        ctx.name = name
        return tensor.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        """Nothing gets through: the gradient of the value goes through the second pass."""
        raise ReplayError(
            f"{ctx.name} gives out a tensor besides the value it returns, by an attribute or a hook, and a loss uses it; its "
            "gradient would be lost: read states with readouts, detach the tensor, or use backprop='autograd'."
        )


class Beginning(torch.autograd.Function):
    """The identity on the way into the second pass, so that what begins a graph may be changed in place."""

    @staticmethod
    def forward(ctx: Any, leaf: Tensor) -> Tensor:
        return leaf.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """That of the identity."""
        return grads[0]


def beginning(leaf: Tensor | None) -> Tensor | None:
    """What F is given of a leaf in the second pass."""
    return Beginning.apply(leaf) if leaf is not None and leaf.requires_grad else leaf


def stand_ins_of(circumstances: Circumstances, alias: Callable[[Tensor], Tensor]) -> dict[Tensor, Tensor]:
    """For each parameter to be trained an alias, of its class and with the attributes that somebody gave it."""
    stand_ins = {p: alias(p) for p in circumstances.parameters() if p.requires_grad}
    for parameter, stand_in in stand_ins.items():
        if type(parameter) is not Tensor:
            stand_in.__class__ = type(parameter)
        vars(stand_in).update(vars(parameter))  # type: ignore[attr-defined]
    return stand_ins


def leaf_of(parameter: Tensor) -> Tensor:
    """An alias that begins a graph."""
    return parameter.detach().requires_grad_()


def leaves_of_graph(value: Tensor, fences: set[Any]) -> Iterator[Tensor]:
    """The leaves that a value was computed from without passing one of these fences."""
    if value.grad_fn is None and value.requires_grad:
        yield value
    nodes, visited = [value.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in visited or node in fences:
            continue
        visited.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            yield leaf
        nodes += [following for following, _ in node.next_functions]
