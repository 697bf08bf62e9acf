"""The two passes of one level's transform F[l,t] without autograd."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor, nn

from trevsnn.network.blocks import Expand, LevelStep, Link, PointwiseDepthwise, Transform
from trevsnn.network.lean.block import LeanBlock
from trevsnn.network.lean.link import LeanInput, LeanLink
from trevsnn.network.norm import BatchNorm
from trevsnn.network.slicing import gather
from trevsnn.network.spike import PackedState
from trevsnn.reversible.memory_owner import owner
from trevsnn.reversible.precision import Precision
from trevsnn.reversible.replay import Replay
from trevsnn.reversible.two_pass import Gradients, TwoPass

_KNOWN = (LevelStep, PointwiseDepthwise, Expand, Link, BatchNorm, nn.Conv2d, ScaledStdConv2d, nn.Identity)


def two_pass(module: nn.Module, precision: Precision) -> TwoPass:
    """The lean way to run a transform twice, or, where somebody changed its modules, replay, which takes any."""
    if isinstance(module, Transform) and is_lean(module.step, module.shared):
        return LeanStep(module.step, module.shared, precision, module.slice_bytes)  # type: ignore[arg-type]
    return Replay(module, precision)


def is_lean(*modules: nn.Module) -> bool:
    """Whether modules are nothing but what :class:`LeanStep` computes: no other class, no hook, anywhere in them."""
    return all(
        type(part) in _KNOWN
        and not (part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks)
        for module in modules
        for part in module.modules()
    )


class LeanStep:
    """Both passes of ``F = Block2(Block1(below + above))``, a slice of the batch at a time.

    Of the first pass nothing is kept but batch statistics. The second recomputes the fused potential, and slice by
    slice runs both blocks forward and at once backward, so that no map of the hidden width outlives its slice, nor any
    other its level.

    Args:
        step: the level's modules at one timestep.
        shared: PW2 and DW2 of the second block.
        precision: of the forward pass.
        slice_bytes: that the hidden map of one slice may take; a slice is one image at least.
    """

    def __init__(
        self, step: LevelStep, shared: PointwiseDepthwise, precision: Precision, slice_bytes: int | None
    ) -> None:
        self.step, self.shared, self.precision, self.slice_bytes = step, shared, precision, slice_bytes

    def first_pass(self, below: Tensor, above: Tensor | None) -> tuple[Tensor, Any]:
        """F(below, above), and the batch statistics of the links."""
        with owner("blocks"), self._explicit_precision(), torch.no_grad():
            run = _Run(self, below, above, (None, None))
            parts = ((r, run.second.forward(run.first.forward(run.potential(r)))) for r in run.rows)
            value = gather(parts, below.shape[0])
            return value, tuple(source and source.statistics for source in (run.below, run.above))

    def second_pass(
        self,
        below: Tensor | PackedState,
        above: Tensor | PackedState | None,
        adjoint: Tensor,
        kept: Any,
        below_adjoint: Tensor | None,
        above_adjoint: Tensor | None,
        state: Tensor | None,
    ) -> Gradients:
        """See :class:`trevsnn.reversible.replay.TwoPass`."""
        with owner("blocks"), self._explicit_precision(), torch.no_grad():
            run = _Run(self, below, above, kept)
            for rows in reversed(run.rows):  # the order in which autograd sums gradients
                middle, trace1 = run.first.forward_traced(run.potential(rows))
                assert middle is not None
                run.first.release()
                value, trace2 = run.second.forward_traced(middle, value=state is not None, at_once=True)
                del middle
                if state is not None and value is not None:
                    state[rows] -= value
                del value
                grad = run.second.backward(adjoint[rows], trace2)
                del trace2
                run.second.release()
                run.backward(rows, run.first.backward(grad, trace1), below_adjoint)
                del trace1, grad
            return run.finish(below_adjoint, above_adjoint)

    def _explicit_precision(self) -> torch.autocast:
        # Dtypes are chosen here, once for a pass; autocast would cast weights again for every slice.
        return torch.autocast(self.precision.device.type, enabled=False)


class _Run:
    """The prepared parts of one pass."""

    def __init__(self, lean: LeanStep, below: Any, above: Any, kept: tuple[Any, Any]) -> None:
        step, dtype = lean.step, lean.precision.compute_dtype(below.dtype)
        self.size, self.rows = step.slices(below, lean.precision, lean.slice_bytes)
        pixels = below.shape[0] * self.size[0] * self.size[1]
        self.first = LeanBlock(step.expand1, step.project1, step.gamma, dtype, pixels)
        self.second = LeanBlock(step.expand2, lean.shared, None, dtype, pixels)
        kind = LeanLink if isinstance(step.below, Link) else LeanInput
        self.below = kind(step.below, dtype)  # type: ignore[arg-type]
        self.above = LeanLink(step.above, dtype) if isinstance(step.above, Link) and above is not None else None
        self.below.prepare(below, self.rows, kept[0])
        if self.above is not None:
            self.above.prepare(above, self.rows, kept[1])

    def potential(self, rows: slice) -> Tensor:
        """A slice of what the first block is given."""
        potential = self.below.forward(rows)
        if self.above is None:
            return potential
        link = self.above.forward(rows)
        if list(link.shape[2:]) != self.size:
            link = nn.functional.interpolate(link, size=self.size, mode="nearest")
        return potential + link

    def backward(self, rows: slice, grad: Tensor, below_adjoint: Tensor | None) -> None:
        """Hand the gradient of a slice's potential on."""
        self.below.backward(rows, grad, below_adjoint)
        if self.above is None:
            return
        size = list(self.above.maps.shape[2:])
        if size != self.size:
            shape = [grad.shape[0], grad.shape[1], *size]
            grad = torch.ops.aten.upsample_nearest2d_backward(grad, self.size, shape)
        self.above.backward(rows, grad, None)

    def finish(self, below_adjoint: Tensor | None, above_adjoint: Tensor | None) -> Gradients:
        """What waits for the whole batch, and all gradients of parameters."""
        found = self.first.gradients() + self.second.gradients()
        del self.first, self.second
        self.below.finish(self.rows, below_adjoint)
        found += self.below.gradients()
        if self.above is not None:
            self.above.finish(self.rows, above_adjoint)
            found += self.above.gradients()
        return found
