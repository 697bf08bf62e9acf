"""One level at one timestep, as the recurrence runs it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trevsnn.network.blocks import LevelStep, PointwiseDepthwise
from trevsnn.network.config import Kernels, TRevSNNConfig
from trevsnn.network.keep import bytes_to_keep, pieces_to_keep
from trevsnn.network.kernels.choice import keeps_codes
from trevsnn.network.lean.step import LeanStep, is_lean
from trevsnn.network.slicing import plain_step, step_slices
from trevsnn.reversible import Replay, SecondPass, Sees, adjacent
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
        keep: whether the lean first pass keeps what spares the second one the blocks' pointwise convolutions.
    """

    def __init__(
        self, step: LevelStep, shared: PointwiseDepthwise, slice_bytes: int | None, kernels: Kernels, name: str
    ) -> None:
        self.step, self.shared, self.slice_bytes, self.name = step, shared, slice_bytes, name
        self.kernels: Kernels = kernels
        self.keep = False

    def parameters(self) -> Iterable[nn.Parameter]:
        """Those of the step and of the shared half, each once."""
        return dict.fromkeys([*self.step.parameters(), *self.shared.parameters()])

    def __call__(self, *states: Tensor | None) -> Tensor:
        """F[l,t](below, *above), (B, C, H, W), in plain torch operations."""
        return plain_step(self.step, self.shared, self.slice_bytes)(*states)

    def first_pass(self, *states: Tensor | None) -> tuple[Tensor, SecondPass]:
        """The lean way, or, where somebody changed the modules, the same operations replayed under autograd."""
        if is_lean(self.step, self.shared):
            lean = LeanStep(self.step, self.shared, self.slice_bytes, self.kernels, keep=self.keep)
            return lean.first_pass(*states)  # type: ignore[arg-type]
        plain = plain_step(self.step, self.shared, self.slice_bytes)
        return Replay(plain, self.step, self.shared, name=self.name).first_pass(*states)


def choose_kept(transforms: list[list[Transform]], inputs: Tensor, keep: str) -> None:
    """Let as many transforms keep their maps as fit into ``keep``, of the timesteps and levels of ``transforms``.

    Of each item and pixel a level keeps the codes of two hidden maps, 2 bits a neuron, but where kernels have these in
    registers, and two outputs of PW2. Where
    modules are not the library's own, nothing can be kept, nor of the levels above, whose size is not known.

    Args:
        transforms: by timestep and level.
        inputs: x[0], (B, C', H', W').
        keep: as :func:`trevsnn.network.keep.check_keep` accepts it.
    """
    batch, precision = inputs.shape[0], Precision.current(inputs.device)
    dtype = precision.compute_dtype(inputs.dtype)
    below = torch.empty_like(inputs, device="meta")
    sizes: list[int | None] = [None] * len(transforms[-1])
    for level, last in enumerate(transforms[-1]):
        if not is_lean(last.step, last.shared):
            break
        (height, width), _ = step_slices(last.step, below, precision, None)
        expand, project, channels = last.step.expand1, last.step.project1, last.step.project1.pw2.out_channels
        hidden = expand.pw1.out_channels if keeps_codes(expand, project, dtype, last.kernels) else 0
        sizes[level] = 2 * batch * (-(-hidden * height * width // 4) + channels * height * width * dtype.itemsize)
        below = below.new_empty((batch, channels, height, width))
    for t, level in pieces_to_keep(sizes, len(transforms), bytes_to_keep(keep, batch, inputs.device)):
        transforms[t][level].keep = True
