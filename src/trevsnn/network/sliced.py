"""A module without normalisation on slices of the batch, so that its maps are never all alive at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trevsnn.network.slicing import gather
from trevsnn.reversible.memory_owner import Part, owner
from trevsnn.reversible.precision import Precision
from trevsnn.reversible.replay import Replay
from trevsnn.reversible.two_pass import add_up


class _OneInput(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, _: None) -> Tensor:
        return self.module(x)


class _Sliced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, module: nn.Module, rows: list[slice], part: Part, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x, *parameters)
        ctx.module, ctx.rows, ctx.part, ctx.parameters = module, rows, part, parameters
        ctx.precision = Precision.current(x.device)
        with owner(part):
            return gather(((r, module(x[r])) for r in rows), x.shape[0])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, *_ = ctx.saved_tensors
        grad_x = torch.zeros_like(x) if ctx.needs_input_grad[3] else None
        totals: dict[Tensor, Tensor] = {}
        replay = Replay(_OneInput(ctx.module), ctx.precision)
        for r in reversed(ctx.rows):  # the order in which autograd sums
            sink = None if grad_x is None else grad_x[r]
            with owner(ctx.part):
                found = replay.second_pass(x[r], None, grad_outputs[0][r], None, sink, None, None)
            add_up(totals, found)
        return (None, None, None, grad_x, *(totals.get(p) for p in ctx.parameters))


@torch.compiler.disable
def sliced(module: nn.Module, x: Tensor, rows: list[slice], part: Part) -> Tensor:
    """``module(x)``, keeping nothing but ``x`` and running the module again, slice by slice, in the backward pass.

    Args:
        module: of one input; each row of its output depends on the same row of ``x`` alone, and nothing is random.
        x: any shape, batch first.
        rows: the slices of the batch, in order.
        part: whose memory it is (:mod:`trevsnn.reversible.memory_owner`).

    A compiler breaks its graph here.
    """
    return _Sliced.apply(module, rows, part, x, *module.parameters())  # type: ignore[no-any-return]
