"""Every decision about slices of the batch.

A block without normalisation acts on each item alone, so it can run on a few items at a time; its temporaries shrink by
the number of slices. A library may pick another algorithm, with other rounding, for another batch size, so every pass
in every mode uses the same slices, and all of them see the same spikes. The equations (:mod:`trevsnn.network.blocks`,
:mod:`trevsnn.network.encoders`) know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from trevsnn.network.blocks import Expand, LevelStep, Link, PointwiseDepthwise, fuse
from trevsnn.network.encoders import AnnealedLeakyReLU, ImageEncoder, ImageStem
from trevsnn.network.norm import BatchNorm
from trevsnn.reversible import Code, Neighbour, Replay
from trevsnn.reversible.circumstances import Circumstances
from trevsnn.reversible.compiling import hidden_from_compiler
from trevsnn.reversible.memory_owner import Owner, owner
from trevsnn.reversible.precision import Precision
from trevsnn.reversible.replay import refuse_function_transforms, refuse_second_derivatives
from trevsnn.reversible.two_pass import add_up

#: Default of ``TRevSNNConfig.slice_bytes``: about a CPU's cache, and enough work to fill a GPU.
SLICE_BYTES_CPU, SLICE_BYTES_ACCELERATOR = 13 * 2**18, 512 * 2**20

_CONVS = (nn.Conv2d, ScaledStdConv2d)
#: What the parts of a step may be, by their names in it.
_PARTS: dict[type, dict[str, tuple[type, ...]]] = {
    LevelStep: {
        "below": (Link, nn.Identity, *_CONVS), "above": (Link, type(None)), "further": (nn.ModuleList,),
        "expand1": (Expand,), "project1": (PointwiseDepthwise,), "expand2": (Expand,),
    },
    Expand: {"dw1": _CONVS, "pw1": _CONVS},
    PointwiseDepthwise: {"pw2": _CONVS, "dw2": _CONVS},
    Link: {"conv": _CONVS, "bn": (BatchNorm,)},
}  # fmt: skip
_PARTS_OF_AN_ENCODER = (ImageEncoder, ImageStem, AnnealedLeakyReLU, nn.Identity, *_CONVS)


def slices(batch: int, bytes_per_item: int, slice_bytes: int | None, device: torch.device) -> list[slice]:
    """Cut a batch into slices of as many items as fit into ``slice_bytes``, one at least; None for the default.

    A compiler gets one slice: it would unroll them all, and arranges memory in its own way.
    """
    if torch.compiler.is_compiling():
        return [slice(0, batch)]
    if slice_bytes is None:
        slice_bytes = SLICE_BYTES_CPU if device.type == "cpu" else SLICE_BYTES_ACCELERATOR
    items = max(1, slice_bytes // max(1, bytes_per_item))
    return [slice(start, min(batch, start + items)) for start in range(0, batch, items)]


def in_slices(function: Callable[[Tensor], Tensor], x: Tensor, rows: list[slice]) -> Tensor:
    """``function(x)``, computed slice by slice in plain torch operations."""
    if len(rows) == 1:
        return function(x)
    return torch.cat([function(part) for part in x.split(rows[0].stop)])


def gather(parts: Iterator[tuple[slice, Tensor]], batch: int) -> Tensor:
    """Put slices together as they come, so that no two copies of the whole are alive at a time."""
    whole: Tensor | None = None
    for rows, part in parts:
        if part.shape[0] == batch:
            return part
        if whole is None:
            whole = _empty(part, batch)
        whole[rows] = part
    assert whole is not None
    return whole


def fast_format(device: torch.device) -> torch.memory_format:
    """The memory layout of maps that a device is fastest in: channels-last, but for MPS."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def fast_layout(maps: Tensor) -> Tensor:
    """(B, C, H, W) in the layout of :func:`fast_format`."""
    if torch._C._are_functorch_transforms_active():  # vmap knows no layouts
        return maps
    return maps.contiguous(memory_format=fast_format(maps.device))


def is_sliceable(step: nn.Module, shared: nn.Module) -> bool:
    """Whether all of a step but the links' batch statistics may be computed on a few items at a time.

    It consists of nothing but this network's own modules, which act on each item alone; any other may look across the
    batch, and is given the whole of it. A hook on the step or on a link has to see the whole batch, too.
    """
    return (
        type(step) is LevelStep
        and type(shared) is PointwiseDepthwise
        and isinstance(step.above, Link | None)
        and has_its_parts(step)
        and has_its_parts(shared)
        and not any(
            has_hooks(p) for p in (step, step.below, step.above, *step.further) if isinstance(p, LevelStep | Link)
        )
    )


def has_its_parts(module: nn.Module) -> bool:
    """Whether a module consists, all the way down, of what its class is made of, each in its place."""
    allowed, parts = _PARTS.get(type(module), {}), module._modules  # not by name: this runs in every pass
    if type(module) is nn.ModuleList:
        allowed = dict.fromkeys(parts, (Link,))
    return allowed.keys() - parts.keys() <= {"above"} and all(
        type(part) in allowed.get(name, ()) and (part is None or has_its_parts(part)) for name, part in parts.items()
    )


def is_sliceable_encoder(encoder: nn.Module) -> bool:
    """Whether an encoder of pictures is this network's own, which acts on each of them alone; a hook, which may want to see
    the whole batch, makes it another."""
    return all(type(part) in _PARTS_OF_AN_ENCODER and not has_hooks(part) for part in encoder.modules())


def sees_spikes_alone(step: nn.Module, link: nn.Module | None) -> bool:
    """Whether a step looks at the state that it gives to one of its links through spikes alone, as far as is known.

    A link of a user, or a hook on one, may look at numbers.
    """
    return (
        type(step) is LevelStep
        and not has_hooks(step)
        and (link is None or (type(link) is Link and not has_hooks(link)))
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether calling a module does more than its class says: it has hooks, or a ``forward`` of its own, as wrappers
    give it, or there are hooks on all modules."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        or "forward" in vars(module) or _has_any_global_hook()
    )  # fmt: skip


def step_slices(
    step: LevelStep, below: Tensor | Code, precision: Precision, slice_bytes: int | None
) -> tuple[list[int], list[slice]]:
    """The size (H, W) of a step's maps, and its slices, cut by the size of the hidden map.

    Args:
        step: sliceable.
        below: what it is given, (B, C', H', W').
        precision: of the pass.
        slice_bytes: for the hidden map, (b, 4C, H, W), of one slice.
    """
    conv = step.below.conv if isinstance(step.below, Link) else step.below
    stride = conv.stride if isinstance(conv, nn.Conv2d) else (1, 1)
    height, width = (-(-n // s) for n, s in zip(below.shape[2:], stride, strict=True))
    hidden = step.expand1.pw1.out_channels * height * width * precision.compute_dtype(below.dtype).itemsize
    return [height, width], slices(below.shape[0], hidden, slice_bytes, precision.device)


def encoder_slices(encoder: ImageEncoder, image: Tensor, slice_bytes: int | None) -> list[slice]:
    """The slices of a batch of pictures, cut by the size of the stem's map, the widest one of the encoder."""
    elements = encoder.stem_elements(*image.shape[2:])
    itemsize = Precision.current(image.device).compute_dtype(image.dtype).itemsize
    return slices(image.shape[0], elements * itemsize, slice_bytes, image.device)


def plain_step(step: LevelStep, shared: PointwiseDepthwise, slice_bytes: int | None) -> Callable[..., Tensor]:
    """``F(below, *above)`` of a step in plain torch operations, in slices where they cannot change what it computes: the slow
    twin of :class:`trevsnn.network.lean.step.LeanStep`."""
    if torch.compiler.is_compiling() or not is_sliceable(step, shared):  # a compiler sees one slice
        return partial(_whole_step, step, shared)
    return partial(sliced_step, step, shared, slice_bytes)


def _whole_step(step: LevelStep, shared: PointwiseDepthwise, below: Tensor, *above: Tensor | None) -> Tensor:
    return step(below if isinstance(step.below, Link) else fast_layout(below), above, shared)


def sliced_step(
    step: LevelStep, shared: PointwiseDepthwise, slice_bytes: int | None, below: Tensor, *above: Tensor | None
) -> Tensor:
    """``step(below, above, shared)`` of a sliceable step, slice by slice."""
    _, rows = step_slices(step, below, Precision.current(below.device), slice_bytes)

    def link(module: nn.Module, seen: Tensor) -> Tensor:
        if isinstance(module, Link):  # statistics are the whole batch's
            return module.bn(in_slices(module.convolve, seen, rows))
        return in_slices(lambda part: module(fast_layout(part)), seen, rows)

    from_above = [link(module, state) for module, state in step.links_from_above(above)]
    potential = fuse(link(step.below, below), *from_above)
    return in_slices(lambda part: step.blocks(part, shared), potential, rows)


class _Sliced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, module: nn.Module, rows: list[slice], part: Owner, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x, *parameters)
        ctx.module, ctx.rows, ctx.part, ctx.parameters = module, rows, part, parameters
        ctx.circumstances = Circumstances(x.device, module)
        with owner(part):
            return gather(((r, module(fast_layout(x[r]))) for r in rows), x.shape[0])

    @staticmethod
    @hidden_from_compiler
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """dL/dx and dL/dtheta of each slice, by autograd on the module run again."""
        refuse_second_derivatives()
        x, *_ = ctx.saved_tensors
        grad_x = torch.zeros_like(x) if ctx.needs_input_grad[3] else None
        totals: dict[Tensor, Tensor] = {}
        replay = Replay(lambda part: ctx.module(fast_layout(part)), ctx.module)
        for r in reversed(ctx.rows):  # the order in which autograd sums
            seen = Neighbour(x[r], None if grad_x is None else grad_x[r])
            with owner(ctx.part):
                gradients = replay.second_pass(ctx.circumstances, None, [seen], grad_outputs[0][r], None)
            add_up(totals, gradients)
        return (None, None, None, grad_x, *(totals.get(p) for p in ctx.parameters))


def sliced(module: nn.Module, x: Tensor, rows: list[slice], part: Owner) -> Tensor:
    """``module(x)``, keeping nothing but ``x`` and running the module again, slice by slice, in the backward pass.

    Args:
        module: of one input; each row of its output depends on the same row of ``x`` alone, and nothing is random.
        x: (B, C, H, W).
        rows: the slices of the batch, in order.
        part: whose memory it is (:mod:`trevsnn.reversible.memory_owner`).
    """
    refuse_function_transforms()
    return _Sliced.apply(module, rows, part, x, *module.parameters())  # type: ignore[no-any-return]


def _empty(like: Tensor, batch: int) -> Tensor:
    """An uninitialised tensor of ``batch`` rows with the dtype and memory layout of ``like``."""
    layout = torch.channels_last if like.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    shape = (batch, *like.shape[1:])
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)
