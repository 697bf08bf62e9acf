"""One level at one timestep, as the recurrence runs it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from trevsnn.network.blocks import LevelStep, PointwiseDepthwise
from trevsnn.network.config import Kernels, TRevSNNConfig
from trevsnn.network.lean.step import LeanStep, is_lean
from trevsnn.network.slicing import plain_step
from trevsnn.reversible import Replay, SecondPass, Sees, adjacent


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
    """

    def __init__(
        self, step: LevelStep, shared: PointwiseDepthwise, slice_bytes: int | None, kernels: Kernels, name: str
    ) -> None:
        self.step, self.shared, self.slice_bytes, self.name = step, shared, slice_bytes, name
        self.kernels: Kernels = kernels

    def parameters(self) -> Iterable[nn.Parameter]:
        """Those of the step and of the shared half, each once."""
        return dict.fromkeys([*self.step.parameters(), *self.shared.parameters()])

    def __call__(self, *states: Tensor | None) -> Tensor:
        """F[l,t](below, *above), (B, C, H, W), in plain torch operations."""
        return plain_step(self.step, self.shared, self.slice_bytes)(*states)

    def first_pass(self, *states: Tensor | None) -> tuple[Tensor, SecondPass]:
        """The lean way, or, where somebody changed the modules, the same operations replayed under autograd."""
        if is_lean(self.step, self.shared):
            lean = LeanStep(self.step, self.shared, self.slice_bytes, self.kernels)
            return lean.first_pass(*states)  # type: ignore[arg-type]
        plain = plain_step(self.step, self.shared, self.slice_bytes)
        return Replay(plain, self.step, self.shared, name=self.name).first_pass(*states)
