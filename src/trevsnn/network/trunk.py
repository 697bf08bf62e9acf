"""The network without its heads: encoder, levels, and how they are run and read."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trevsnn.checks import choice
from trevsnn.network.blocks import Level, LevelStep
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.encoders import AnnealedLeakyReLU, ImageEncoder
from trevsnn.network.freezing import Freezable
from trevsnn.network.slicing import (
    encoder_slices,
    fast_layout,
    in_slices,
    is_sliceable_encoder,
    sees_spikes_alone,
    sliced,
)  # fmt: skip
from trevsnn.network.spike import SPIKE
from trevsnn.network.transform import Skip, Transform, choose_kept
from trevsnn.reversible import BACKPROP_MODES, Alpha, Backprop, Constant, Readout, Sees, View, run
from trevsnn.reversible.compiling import as_it_is, is_exporting, is_left_alone
from trevsnn.reversible.inversion import read_alpha


class Read(NamedTuple):
    """What is read of a level's state c[l,t].

    Attributes:
        timestep: t.
        level: l, from 0 on, or -1 for the top one.
        function: of the state.
        of_spikes: the same of s(c[l,t]), where the function looks at spikes alone; then 2 bits are kept of the state for it.
    """

    timestep: int
    level: int
    function: Callable[[Tensor], Tensor]
    of_spikes: Callable[[Tensor], Tensor] | None = None


class Trunk(Freezable):
    """What :class:`trevsnn.TRevSNN` and :class:`trevsnn.FeatureNet` are made of; they build or take the encoder and the levels.

    Attributes:
        read_alpha: as :func:`trevsnn.reversible.run` takes it, of a bounded alpha.
    """

    read_alpha: Callable[[Tensor], NDArray[np.float64]] = staticmethod(read_alpha)
    config: TRevSNNConfig
    _backprop: Backprop
    _sees: list[Sees]

    @property
    def backprop(self) -> Backprop:
        """What the backward pass rests on: the config's mode, unless :meth:`set_backprop` chose another."""
        return self._backprop

    def set_backprop(self, mode: Backprop) -> None:
        """Choose "exact", in which alone ``keep`` counts, "reversible" or "autograd" for the passes to come; results do not
        depend on it.

        Raises:
            ValueError: another name.
        """
        choice("backprop", mode, BACKPROP_MODES)
        self._backprop = mode

    def set_slope(self, slope: float) -> None:
        """Set the negative slope of every annealed leaky ReLU (encoder and last head); 1, the default, is linear."""
        for module in self.modules():
            if isinstance(module, AnnealedLeakyReLU):
                module.slope = float(slope)

    def no_weight_decay(self) -> set[str]:
        """Names of the gains, gammas, alphas and biases, as timm's ``create_optimizer_v2`` asks for them: vectors, though
        many of them have four axes."""
        return {name for name, value in self.named_parameters() if value.numel() == max(value.shape, default=1)}

    def _read(self, x: Tensor, reads: Sequence[Read], top: int = -1) -> list[Tensor]:
        """What is read, in the order of ``reads``.

        Args:
            x: the network's input.
            reads: of any levels and timesteps; those of the last timestep, of levels up to ``top``.
            top: the highest level whose last state is wanted: what only those above it need is not computed.
        """
        if is_left_alone(self._backprop, x.device):
            return as_it_is(self._read, x, reads, top)
        transforms, alphas, inputs = self._recurrence(x, top)
        views: Sequence[View | None] = [None] * len(self.levels)
        if self._mode() != "autograd" and torch.is_grad_enabled():
            views = self._views() if self._mode() == "exact" else [SPIKE] * len(self.levels)
        readouts = [
            Readout(read.timestep, read.of_spikes, read.level, seen=True)
            if views[read.level] and read.of_spikes
            else Readout(read.timestep, read.function, read.level)
            for read in reads
        ]
        levels = len(transforms[0])
        sees = [seen._replace(upper=tuple(j for j in seen.upper if j <= levels)) for seen in self._sees[:levels]]
        _, values = run(
            transforms, alphas, inputs, sees=sees, views=views[:levels],
            backprop=self._mode(), readouts=readouts, once=True, read_alpha=self.read_alpha,
        )  # fmt: skip
        return values

    def _views(self) -> list[View | None]:
        """For each level whether its state is seen through spikes alone, so that their codes are all that is kept."""
        views: list[View | None] = [SPIKE] * len(self.levels)
        for level, t, step in self._steps():
            above = ["above", *(f"further.{i}" for i in range(len(step.further)))]
            for seen, name in [(level - 1, "below"), *enumerate(above, start=level + 1)]:
                link = step.above if name == "above" else step.get_submodule(name)
                if 0 <= seen < len(views) and views[seen] and not sees_spikes_alone(step, link):
                    views[seen] = None
                    warnings.warn(
                        f"levels.{level}.steps.{t}.{name} is not the library's own, or has hooks, and may look at more than "
                        f"spikes: the states of level {seen} are kept themselves, not in 2 bits per neuron and timestep.",
                        stacklevel=5,
                    )
        return views

    def _steps(self) -> Iterator[tuple[int, int, LevelStep]]:
        for level, module in enumerate(self.levels):
            for t, step in enumerate(module.steps):  # type: ignore[arg-type]
                yield level, t, step

    def _recurrence(
        self, x: Tensor, top: int = -1
    ) -> tuple[list[list[Transform | Skip | Constant]], list[list[Alpha] | None], list[Tensor]]:
        """F[l,t], alpha[l,t] and x[t] of all timesteps, as far as the last states of the levels up to ``top`` need them."""
        self._check(x)
        image = self.config.input == "image"
        transforms, alphas = self._transforms(top)
        inputs = [self._encode(x)] * self.config.timesteps if image else list(x.unbind(1))
        if self.config.keep is not None and self._mode() == "exact" and torch.is_grad_enabled():
            choose_kept(transforms, inputs[0], self.config.keep, self.frozen)
        return self._with_constants(transforms), alphas, inputs

    def _transforms(self, top: int = -1) -> tuple[list[list[Transform | Skip]], list[list[Alpha] | None]]:
        """F[l,t] and alpha[l,t] of all timesteps, the alphas kept away from 0."""
        slice_bytes, kernels = self.config.slice_bytes, self.config.kernels
        needed = highest_needed(self._sees, self.config.timesteps, top % len(self.levels))
        levels: list[Level] = list(self.levels)[: needed[0] + 1]  # type: ignore[assignment]
        transforms: list[list[Transform | Skip]] = []
        for t, highest in enumerate(needed):
            transforms.append(
                [
                    Transform(level.steps[t], level.shared, slice_bytes, kernels, f"levels.{i}.steps.{t}")  # type: ignore[arg-type]
                    if i <= highest
                    else Skip(transforms[-1][i])
                    for i, level in enumerate(levels)
                ]
            )
        alphas: list[list[Alpha] | None] = [
            None if t == 0 else [level.alpha(t) if i <= highest else None for i, level in enumerate(levels)]
            for t, highest in enumerate(needed)
        ]
        return transforms, alphas

    def _mode(self) -> Backprop:
        """What this pass's backward pass rests on. An exported program has none, and consists of plain operations."""
        return "autograd" if is_exporting() else self._backprop

    def _encode(self, image: Tensor) -> Tensor:
        encoder = self.encoder
        if not isinstance(encoder, ImageEncoder) or not (
            torch.compiler.is_compiling() or is_sliceable_encoder(encoder)
        ):
            return encoder(fast_layout(image))
        rows = encoder_slices(encoder, image, self.config.slice_bytes)
        if self._mode() == "autograd" or not torch.is_grad_enabled():
            return in_slices(lambda part: encoder(fast_layout(part)), image, rows)
        return sliced(encoder, image, rows, "encoder")

    def _check(self, x: Tensor) -> None:
        config = self.config
        if config.input == "image":
            wanted, fits = f"(B, {config.in_chans}, H, W)", x.dim() == 4 and x.shape[1] == config.in_chans
        else:
            wanted = f"(B, {config.timesteps}, {config.in_chans}, H, W)"
            fits = x.dim() == 5 and x.shape[1:3] == (config.timesteps, config.in_chans)
        if not fits or x.numel() == 0:
            raise ValueError(
                f"the input has shape {tuple(x.shape)}; this {config.input} model takes {wanted}, none of them 0."
            )
        if not x.is_floating_point():
            raise ValueError(f"the input has dtype {x.dtype}; convert it to floating point and normalise it first.")


def highest_needed(sees: Sequence[Sees], timesteps: int, top: int) -> list[int]:
    """By timestep, the highest level whose state goes into the last state of a level up to ``top``.

    A level sees those below it at the same timestep, and those above at the one before.
    """
    needed = [top]
    for _ in range(timesteps - 1):
        upper = [j for seen in sees[: needed[0] + 1] for j in seen.upper if j < len(sees)]
        needed.insert(0, max([needed[0], *upper]))
    return needed
