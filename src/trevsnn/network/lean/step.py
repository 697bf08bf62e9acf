"""The two passes of one level's transform F[l,t] without autograd."""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trevsnn.network.blocks import LevelStep, Link, PointwiseDepthwise, fuse
from trevsnn.network.config import Kernels
from trevsnn.network.keep import PartName
from trevsnn.network.kernels.choice import block
from trevsnn.network.lean.block import NOTHING_KEPT, KeptMaps, LeanBlock, is_lean_block
from trevsnn.network.lean.conv import is_lean_conv
from trevsnn.network.lean.link import LeanInput, LeanLink
from trevsnn.network.norm import Statistics
from trevsnn.network.slicing import gather, has_hooks, is_sliceable, step_slices
from trevsnn.reversible import Code, Gradients, Neighbour, SecondPass
from trevsnn.reversible.circumstances import Circumstances
from trevsnn.reversible.memory_owner import hand_over, owner
from trevsnn.reversible.precision import Precision


def is_lean(step: nn.Module, shared: nn.Module) -> bool:
    """Whether modules are nothing but what :class:`LeanStep` computes: no other class, no hook, anywhere in them, and
    convolutions in the place of others are such as it knows."""
    if not is_sliceable(step, shared) or any(map(has_hooks, (*step.modules(), *shared.modules()))):
        return False
    assert isinstance(step, LevelStep)
    assert isinstance(shared, PointwiseDepthwise)
    channels = step.expand1.dw1.in_channels
    sources = [part.conv if isinstance(part, Link) else part for part in (step.below, step.above, *step.further)]
    return (
        all(is_lean_conv(c) and c.out_channels == channels for c in sources if isinstance(c, nn.Conv2d))
        and step.gamma.shape == (1, channels, 1, 1)
        and is_lean_block(step.expand1, step.project1)
        and is_lean_block(step.expand2, shared)
        and step.expand2.dw1.in_channels == channels
    )


class Kept(NamedTuple):
    """What the second pass needs of the first: what the modules read, the batch statistics of the links from below and
    above, kernels' blocks, whose weights are ready: each would take a dozen launches again, and what it was let keep: the
    links' convolved maps, from below and from above, and of every slice what both blocks kept."""

    circumstances: Circumstances
    below: Statistics | None
    above: Sequence[Statistics | None]
    blocks: tuple[LeanBlock, LeanBlock] | None
    links: Sequence[Tensor | None]
    maps: list[tuple[KeptMaps, KeptMaps]]


class LeanStep:
    """Both passes of ``F = Block2(Block1(v))``, a slice of the batch at a time; the fast twin of
    :func:`trevsnn.network.slicing.sliced_step`.

    ``v`` is the sum of what comes from below and from above. Of the first pass no map is kept, but batch statistics.
    The second recomputes v, and slice by slice runs both blocks forward and at once backward, so that no map of the
    hidden width outlives its slice, nor any other its level.

    Args:
        step: the level's modules at one timestep.
        shared: PW2 and DW2 of the second block.
        slice_bytes: that the hidden map of one slice may take; a slice is one item at least. None for the default.
        kernels: what computes the blocks.
        keep: what the first pass keeps so that the second does not compute it again (:mod:`trevsnn.network.keep`).
    """

    def __init__(
        self, step: LevelStep, shared: PointwiseDepthwise, slice_bytes: int | None, kernels: Kernels = "auto",
        *, keep: Set[PartName] = frozenset(),
    ) -> None:  # fmt: skip
        self.step, self.shared, self.slice_bytes, self.keep = step, shared, slice_bytes, keep
        self.kernels: Kernels = kernels

    def first_pass(self, below: Tensor, *above: Tensor | None) -> tuple[Tensor, SecondPass]:
        """F(below, above), (B, C, H, W), and the pass back through it."""
        # Batch statistics are kept, and no other setting matters.
        circumstances = Circumstances(below.device, self.step, self.shared, weights_only=True)
        precision = circumstances.precision
        with owner("blocks"), _explicit(precision), torch.no_grad():
            layers = _Layers(self, below, above, precision)
            below_maps, below_statistics = layers.below.prepare(below, layers.rows)
            prepared = [link.prepare(state, layers.rows) for link, state in layers.above]
            above_maps, above_statistics = [maps for maps, _ in prepared], [statistics for _, statistics in prepared]
            del prepared
            kept: list[tuple[KeptMaps, KeptMaps]] = []

            def value(rows: slice) -> Tensor:
                potential = layers.fused(below_maps, below_statistics, above_maps, above_statistics, rows)
                if self.keep <= {"links"}:  # of the blocks nothing
                    return layers.block2.forward(layers.block1.forward(potential))
                middle, first = layers.block1.forward_kept(potential, self.keep)
                out, second = layers.block2.forward_kept(middle, self.keep)
                kept.append((first, second))
                return out

            whole = gather(((rows, value(rows)) for rows in layers.rows), below.shape[0])
            blocks = (layers.block1, layers.block2) if layers.block1.kernels and layers.block2.kernels else None
            links: list[Tensor | None] = [None] * (1 + len(above_maps))
            if "links" in self.keep:
                links = [below_maps if isinstance(layers.below, LeanLink) else None, *above_maps]
                for maps in links:
                    if maps is not None:
                        hand_over(maps, "kept")
        found = Kept(circumstances, below_statistics, above_statistics, blocks, links, kept)
        return whole, partial(self.second_pass, found)

    def second_pass(
        self, kept: Kept, seen: Sequence[Neighbour | None], adjoint: Tensor, state: Tensor | None
    ) -> Gradients:
        """See :class:`trevsnn.reversible.SecondPass`. In each slice, with y = dL/dF::

            c        -= F
            dL/dv     = (dBlock1/dv)^T (dBlock2/dBlock1)^T y
            dL/dbelow = (dbelow/dc)^T dL/dv
            dL/dabove = (dabove/dc)^T upsample^T dL/dv

        A link's batch statistics depend on the whole batch, so dL/dv is gathered before it goes through a link.
        """
        below, above = seen[0], seen[1:]
        assert below is not None
        precision = kept.circumstances.precision
        with owner("blocks"), kept.circumstances.restored(), _explicit(precision), torch.no_grad():
            layers = _Layers(self, below.value, above, precision, kept.blocks)
            below_maps, *of_above = kept.links
            if below_maps is None:
                below_maps, _ = layers.below.prepare(below.value, layers.rows, kept.below)
            above_maps = [
                link.prepare(neighbour.value, layers.rows, statistics)[0] if maps is None else maps
                for (link, neighbour), statistics, maps in zip(layers.above, kept.above, of_above, strict=True)
            ]
            below_grad: Tensor | None = None
            above_grads: list[Tensor | None] = [None] * len(above_maps)
            for place, rows in reversed(list(enumerate(layers.rows))):  # the order in which autograd sums gradients
                potential = layers.fused(below_maps, kept.below, above_maps, kept.above, rows)
                maps_kept = kept.maps[place] if kept.maps else (NOTHING_KEPT, NOTHING_KEPT)
                value, trace1, trace2 = layers.traces(potential, *maps_kept, value=state is not None)
                del potential
                if state is not None and value is not None:
                    state[rows] -= value
                del value
                grad = layers.block2.backward(adjoint[rows], trace2)
                del trace2
                layers.block2.release()
                grad = layers.block1.backward(grad, trace1)
                del trace1
                if isinstance(layers.below, LeanInput):
                    sink = None if below.adjoint is None else below.adjoint[rows]
                    layers.below.backward(grad, below_maps[rows], sink)
                else:
                    below_grad = _put(grad, rows, below_grad, below_maps)
                for link, maps in enumerate(above_maps):
                    above_grads[link] = _put(_upsample_backward(grad, maps), rows, above_grads[link], maps)
                del grad
            gradients = layers.release_blocks()
            if isinstance(layers.below, LeanInput):
                gradients += layers.below.gradients()
            # Each link's whole maps are freed before its convolution goes back, in slices.
            waiting: list[tuple[Any, ...]] = [
                (layers.below, below, kept.below, below_grad, below_maps),
                *(
                    (*link, *rest)
                    for link, *rest in zip(layers.above, kept.above, above_grads, above_maps, strict=True)
                ),
            ]
            del below_grad, below_maps, above_grads, above_maps
            while waiting:
                link, neighbour, statistics, grad, maps = waiting.pop(0)
                if not isinstance(link, LeanLink) or grad is None or statistics is None:
                    continue
                grad, of_norm = link.norm_backward(grad, maps, statistics)
                del maps
                gradients += link.conv_backward(grad, neighbour, layers.rows) + of_norm
            return gradients


class _Layers:
    """The lean layers of one step, for one pass; they sum up the gradients of their parameters over its slices.

    Attributes:
        above: each link from above with the state, or neighbour, that it is given.
    """

    def __init__(
        self, lean: LeanStep, below: Tensor | Code, above: Sequence[Any], precision: Precision,
        blocks: tuple[LeanBlock, LeanBlock] | None = None,
    ) -> None:  # fmt: skip
        step, dtype = lean.step, precision.compute_dtype(below.dtype)
        size, self.rows = step_slices(step, below, precision, lean.slice_bytes)
        pixels = below.shape[0] * size[0] * size[1]
        self.block1, self.block2 = blocks or (
            block(step.expand1, step.project1, step.gamma, dtype, pixels, lean.kernels),
            block(step.expand2, lean.shared, None, dtype, pixels, lean.kernels),
        )
        self.below = LeanLink(step.below, dtype) if isinstance(step.below, Link) else LeanInput(step.below, dtype)
        links = step.links_from_above(above)
        self.above = [(LeanLink(link, dtype), state) for link, state in links if isinstance(link, Link)]

    def fused(
        self, below_maps: Tensor, below_statistics: Statistics | None, above_maps: Sequence[Tensor],
        above_statistics: Sequence[Statistics | None], rows: slice,
    ) -> Tensor:  # fmt: skip
        """``v``, a slice of the sum of what comes from below and from above."""
        if self.block1.kernels and len(self.above) < 2:
            return self._fused_by_kernel(below_maps, below_statistics, above_maps, above_statistics, rows)
        from_above = (
            link.forward(maps[rows], statistics)
            for (link, _), maps, statistics in zip(self.above, above_maps, above_statistics, strict=True)
        )
        return fuse(self.below.forward(below_maps[rows], below_statistics), *from_above)

    def _fused_by_kernel(
        self, below_maps: Tensor, below_statistics: Statistics | None, above_maps: Sequence[Tensor],
        above_statistics: Sequence[Statistics | None], rows: slice,
    ) -> Tensor:  # fmt: skip
        from trevsnn.network.kernels.potential import potential  # Triton is not everywhere

        if isinstance(self.below, LeanLink):
            below = below_maps[rows], self.below.bn, below_statistics
        else:
            below = self.below.forward(below_maps[rows], None), None, None
        upper = [
            (maps[rows], link.bn, by)
            for (link, _), maps, by in zip(self.above, above_maps, above_statistics, strict=True)
        ]
        return potential(below, upper[0] if upper else None)

    def traces(
        self, potential: Tensor, first: KeptMaps, second: KeptMaps, *, value: bool
    ) -> tuple[Tensor | None, Any, Any]:
        """Of a slice F, if it is asked for, and both blocks' traces: from what was kept of it, or computed again."""
        middle, trace1 = self.block1.trace_again(potential, first)
        assert middle is not None
        self.block1.release()
        whole, trace2 = self.block2.trace_again(middle, second, value=value, at_once=True)
        return whole, trace1, trace2

    def release_blocks(self) -> Gradients:
        """Free the blocks, and return the gradients of their parameters."""
        gradients = self.block1.gradients() + self.block2.gradients()
        del self.block1, self.block2
        return gradients


def _put(grad: Tensor, rows: slice, whole: Tensor | None, like: Tensor) -> Tensor:
    """Write a slice's gradient into that of the whole batch."""
    if whole is None:
        whole = torch.empty_like(like)
    whole[rows] = grad
    return whole


def _upsample_backward(grad: Tensor, maps: Tensor) -> Tensor:
    """The gradient before nearest-neighbour upsampling of maps to the size of ``grad``: the sum over each one's copies."""
    size, before = list(grad.shape[2:]), list(maps.shape[2:])
    if size == before:
        return grad
    return torch.ops.aten.upsample_nearest2d_backward(grad, size, [*grad.shape[:2], *before])


def _explicit(precision: Precision) -> torch.autocast:
    # Dtypes are chosen here, once for a pass; autocast would cast weights again for every slice.
    return torch.autocast(precision.device.type, enabled=False)
