"""Parts of a network that are not trained."""

from __future__ import annotations

from typing import Self

import torch
from torch import nn

from trevsnn.network.transform import Skip, Transform
from trevsnn.reversible import Constant
from trevsnn.reversible.compiling import is_exporting


class Freezable(nn.Module):
    """A network whose encoder and lowest levels can be frozen."""

    encoder: nn.Module
    levels: nn.ModuleList
    _frozen = 0

    @property
    def frozen(self) -> int:
        """How many of the lowest levels are frozen, and the encoder with them."""
        return self._frozen

    def freeze(self, levels: int) -> None:
        """Freeze the encoder and the lowest levels, or, with 0, train everything again.

        Their weights, gains, alphas and running statistics stay as they are, by which they normalise in training too. What
        they hand up counts as a constant::

            dc[l,t]/dc[l+1,t-1] = 0        of a frozen level l

        so that they have no backward pass, and nothing is kept for one but the spikes of the highest of them. Where T > 1 a frozen level
        sees the level above it, which may be trained: plain backpropagation of the other parameters would go through it.
        With T = 1 nothing is left out.

        Args:
            levels: how many, the lowest first.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 <= levels <= len(self.levels):
            raise ValueError(f"levels to freeze are {levels}; the network has {len(self.levels)}.")
        for part in self._parts(self._frozen):
            part.requires_grad_(True)
        self._frozen = levels
        for part in self._parts(levels):
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As of any module; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._parts(self._frozen):
            part.eval()
        return self

    def _parts(self, levels: int) -> list[nn.Module]:
        return [self.encoder, *self.levels[:levels]] if levels else []

    def _with_constants(self, transforms: list[list[Transform | Skip]]) -> list[list[Transform | Skip | Constant]]:
        """F[l,t] of all levels, those of frozen ones without a backward pass."""
        if not (self._frozen and torch.is_grad_enabled()) or is_exporting():
            return transforms  # type: ignore[return-value]
        return [[Constant(f) if level < self._frozen else f for level, f in enumerate(row)] for row in transforms]
