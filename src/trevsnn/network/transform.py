"""One level at one timestep, as the recurrence runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from trevsnn.network.blocks import LevelStep, Link, PointwiseDepthwise
from trevsnn.network.config import Kernels, TRevSNNConfig
from trevsnn.network.keep import Part, PartName, bytes_to_keep, parts_to_keep
from trevsnn.network.kernels.choice import keeps_codes
from trevsnn.network.lean.step import LeanStep, is_lean
from trevsnn.network.slicing import plain_step, step_slices
from trevsnn.reversible import Replay, SecondPass, Sees, adjacent
from trevsnn.reversible.constant import no_gradients
from trevsnn.reversible.precision import Precision


def sees_of(config: TRevSNNConfig) -> list[Sees]:
    """What F[l,t] of each level is given: c[l-1,t], or x[t], and c[i,t-1] of i = l + 1, or with links="all" of all i > l."""
    levels = len(config.channels)
    if config.links == "adjacent":
        return adjacent(levels)
    return [Sees((level - 1,), tuple(range(level + 1, levels))) for level in range(levels)]


class Transform:
    """F[l,t] with the half-block that its level shares, in slices of the batch (:class:`trevsnn.reversible.TwoPass`).

    It is made for a call and registered nowhere: every weight has one name in the network's state dict, and a
    module that somebody exchanged is the one that runs.

    Args:
        step: the level's modules at one timestep.
        shared: PW2 and DW2 of the second block.
        slice_bytes: for the hidden map of one slice; None for the default.
        kernels: what computes the blocks in the lean passes.
        name: in errors.

    Attributes:
        shape: of the state, once it has run.
        keep: what the lean first pass keeps so that the second does not compute it again (:mod:`trevsnn.network.keep`).
    """

    def __init__(
        self, step: LevelStep, shared: PointwiseDepthwise, slice_bytes: int | None, kernels: Kernels, name: str
    ) -> None:
        self.step, self.shared, self.slice_bytes, self.name = step, shared, slice_bytes, name
        self.kernels: Kernels = kernels
        self.keep: set[PartName] = set()

    def parameters(self) -> Iterable[nn.Parameter]:
        """Those of the step and of the shared half, each once."""
        return dict.fromkeys([*self.step.parameters(), *self.shared.parameters()])

    def __call__(self, *states: Tensor | None) -> Tensor:
        """F[l,t](below, *above), (B, C, H, W), in plain torch operations."""
        value = plain_step(self.step, self.shared, self.slice_bytes)(*states)
        self.shape = value.shape
        return value

    def first_pass(self, *states: Tensor | None) -> tuple[Tensor, SecondPass]:
        """The lean way, or, where somebody changed the modules, the same operations replayed under autograd."""
        if is_lean(self.step, self.shared):
            lean = LeanStep(self.step, self.shared, self.slice_bytes, self.kernels, keep=self.keep)
            value, second_pass = lean.first_pass(*states)  # type: ignore[arg-type]
        else:
            plain = plain_step(self.step, self.shared, self.slice_bytes)
            value, second_pass = Replay(plain, self.step, self.shared, name=self.name).first_pass(*states)
        self.shape = value.shape
        return value, second_pass


class Skip:
    """In place of an F[l,t] that nothing which is read depends on: 0 of the state's shape, for nothing.

    Args:
        earlier: F[l,t-1], which has run when this one does, or what stands in its place.
    """

    def __init__(self, earlier: Transform | Skip) -> None:
        self.earlier = earlier

    @property
    def shape(self) -> torch.Size:
        """Of the state."""
        return self.earlier.shape

    def parameters(self) -> Iterable[nn.Parameter]:
        """None."""
        return ()

    def __call__(self, *states: Tensor | None) -> Tensor:
        """Zeros (B, C, H, W)."""
        below = states[0]
        assert below is not None
        return below.new_zeros(1).expand(self.shape)

    def first_pass(self, *states: Tensor | None) -> tuple[Tensor, SecondPass]:
        """The same, and a second pass that adds nothing to any gradient."""
        return self(*states), no_gradients


def choose_kept(transforms: list[list[Transform | Skip]], inputs: Tensor, keep: str, frozen: int = 0) -> None:
    """Let transforms keep as much as fits into ``keep`` of what spares their second passes most.

    Where modules are not the library's own nothing can be kept, nor of the levels above, whose size is not known.

    Args:
        transforms: by timestep and level.
        inputs: x[0], (B, C', H', W').
        keep: as :func:`trevsnn.network.keep.check_keep` accepts it.
        frozen: lowest levels that have no second pass.
    """
    precision = Precision.current(inputs.device)
    dtype = precision.compute_dtype(inputs.dtype)
    maps = [torch.empty_like(inputs, device="meta")]  # what each level is given from below, and the last one's own
    for column in zip(*transforms, strict=True):
        last = [transform for transform in column if isinstance(transform, Transform)][-1]
        if not is_lean(last.step, last.shared):
            break
        (height, width), _ = step_slices(last.step, maps[-1], precision, None)
        maps.append(inputs.new_empty((len(inputs), last.step.gamma.shape[1], height, width), device="meta"))
    parts = [
        [part for level in range(frozen, len(maps) - 1) for part in _parts(row[level], level, maps, dtype)]
        for row in transforms
    ]
    for row, kept in zip(
        transforms, parts_to_keep(parts, bytes_to_keep(keep, len(inputs), inputs.device)), strict=True
    ):
        for level, name in kept:
            row[level].keep.add(name)  # type: ignore[union-attr]


def _parts(transform: Transform | Skip, level: int, maps: list[Tensor], dtype: torch.dtype) -> Iterator[Part]:
    """What a level can keep at one timestep, with ``maps`` of :func:`choose_kept` and the dtype that it computes in."""
    if isinstance(transform, Skip):
        return
    step, own = transform.step, maps[level + 1]
    expand, project, pixels = step.expand1, step.project1, own[:, 0].numel()
    of_pw1, of_pw2 = (2 * conv.weight.numel() * pixels for conv in (expand.pw1, project.pw2))  # of both blocks
    if keeps_codes(expand, project, dtype, transform.kernels):
        elements = expand.pw1.out_channels * own[0, 0].numel()
        yield Part(level, "codes", 2 * len(own) * -(-elements // 4), of_pw1)
        of_pw1 = 0
    yield Part(level, "projected", 2 * own.numel() * dtype.itemsize, of_pw1 + of_pw2)
    links = [(step.below, maps[level]), *step.links_from_above(maps[level + 2 :])]
    convs = [(link.conv, seen) for link, seen in links if isinstance(link, Link)]
    if convs and len(links) > (step.above is not None) + len(step.further):
        sizes = [_convolved(conv, seen) for conv, seen in convs]
        spared = sum(conv.weight.numel() * out[:, 0].numel() for (conv, _), out in zip(convs, sizes, strict=True))
        yield Part(level, "links", sum(out.numel() for out in sizes) * dtype.itemsize, spared)


def _convolved(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """A convolution's output without numbers."""
    weight = torch.empty_like(conv.weight, device="meta", dtype=maps.dtype)
    return nn.functional.conv2d(maps, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
