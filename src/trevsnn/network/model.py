"""The temporal reversible spiking network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trevsnn.checks import choice, positive
from trevsnn.network.blocks import Level, LevelStep, Link
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.encoders import AnnealedLeakyReLU, ImageEncoder, event_projection, image_projection
from trevsnn.network.freezing import Freezable
from trevsnn.network.heads import AuxiliaryHead, LastHead, mean_over_time, pool_of, reads_plain_spikes
from trevsnn.network.hub import HubModel
from trevsnn.network.rates import FiringRates, counting_hidden_spikes, share
from trevsnn.network.slicing import (
    encoder_slices,
    fast_layout,
    in_slices,
    is_sliceable_encoder,
    sees_spikes_alone,
    sliced,
)  # fmt: skip
from trevsnn.network.spike import SPIKE, spike
from trevsnn.network.start import derived_start
from trevsnn.network.stream import Stream
from trevsnn.network.transform import Transform, choose_kept, sees_of
from trevsnn.reversible import BACKPROP_MODES, Alpha, Backprop, Constant, Readout, View, run, unroll
from trevsnn.reversible.compiling import as_it_is, is_exporting, is_left_alone
from trevsnn.reversible.inversion import read_alpha

AUXILIARY_HEADS = 3


class TRevSNN(Freezable, HubModel):
    """Temporal reversible spiking neural network (Hu et al., ICML 2024).

    State of level l after timestep t: ``c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t](c[l-1,t], c[l+1,t-1])``, with the
    encoded input x[t] below the lowest level; with ``links="all"`` F[l,t] sees c[i,t-1] of every i > l, with ``alphas="one"``
    there is no alpha. Images have a head after each quarter of the timesteps, events one after the last, or, with
    ``readout="mean"``, one after every timestep, the same each time, of whose logits the mean counts.

    Args:
        config: see :class:`TRevSNNConfig`; kept as ``model.config``.

    Attributes:
        read_alpha: the numbers of a bounded alpha, for weights whose tensors hold none; see :func:`trevsnn.reversible.run`.
    """

    config_type = TRevSNNConfig
    read_alpha: Callable[[Tensor], NDArray[np.float64]] = staticmethod(read_alpha)

    def __init__(self, config: TRevSNNConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self._backprop: Backprop = config.backprop
        self._sees = sees_of(config)
        image = config.input == "image"
        in_chans, stride, channels = config.in_chans or 0, config.encoder_stride or 0, config.channels
        self.encoder = (
            ImageEncoder(in_chans, channels[0], stride, project=config.encoding == "shared") if image else nn.Identity()
        )

        def below(level: int) -> nn.Module:
            if level > 0:
                last = level == len(channels) - 1
                return Link(channels[level - 1], channels[level], kernel_size=1 if last else 3, stride=1 if last else 2)
            if not image:
                return event_projection(in_chans, channels[0], stride)
            return image_projection(channels[0], stride) if config.encoding == "grouped" else nn.Identity()

        def step(t: int, level: int) -> LevelStep:
            source, upper = below(level), [i for i in self._sees[level].upper if t > 0 and i < len(channels)]
            links = [Link(channels[i], channels[level], kernel_size=1, stride=1) for i in upper]
            return LevelStep(channels[level], config.kernel_size, source, links[0] if links else None, links[1:])

        self.levels = nn.ModuleList(
            Level(
                [step(t, level) for t in range(config.timesteps)],
                width,
                config.kernel_size,
                learned_alpha=config.alphas == "learned",
            )
            for level, width in enumerate(channels)
        )
        auxiliary = [AuxiliaryHead(channels[-1], config.num_classes) for _ in range(AUXILIARY_HEADS if image else 0)]
        self.heads = nn.ModuleList([*auxiliary, LastHead(channels[-1], config.num_classes, config.read_divisor)])
        derived_start(self)

    @property
    def backprop(self) -> Backprop:
        """What the backward pass rests on: the config's mode, unless :meth:`set_backprop` chose another."""
        return self._backprop

    def set_backprop(self, mode: Backprop) -> None:
        """Choose "exact", in which alone ``keep`` counts, "reversible" or "autograd" for the passes to come; results do not
        depend on it."""
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

    def head_timesteps(self) -> list[range]:
        """The timesteps after which each head reads the top level: image heads after each quarter of them."""
        n, timesteps = len(self.heads), self.config.timesteps
        ends = [-(-timesteps * (i + 1) // n) for i in range(n - 1)]
        return [*(range(end - 1, end) for end in ends), self.config.read_timesteps]

    @overload
    def forward(self, x: Tensor, *, all_heads: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, *, all_heads: Literal[True]) -> list[Tensor]: ...

    def forward(self, x: Tensor, *, all_heads: bool = False) -> Tensor | list[Tensor]:
        """Logits (B, K) of the last head, or of every head in the order of time: four for images, one for events.

        Training asks for all heads, through the module itself, so that what is wrapped around its ``forward`` applies:
        DistributedDataParallel, accelerate, ``torch.compile``, autocast.

        Args:
            x: pictures (B, in_chans, H, W), or event frames (B, T, in_chans, H, W); of the weights' floating dtype.
            all_heads: give the logits of every head.

        Raises:
            ValueError: x has another shape or is not floating point.
        """
        heads, timesteps = list(self.heads), self.head_timesteps()
        if not all_heads:
            heads, timesteps = heads[-1:], timesteps[-1:]
        read = iter(self._run(x, [(head, t) for head, ts in zip(heads, timesteps, strict=True) for t in ts]))
        logits = [mean_over_time([head(next(read)) for _ in ts]) for head, ts in zip(heads, timesteps, strict=True)]
        return logits if all_heads else self._with_all_heads_used(logits[0])

    def forward_heads(self, x: Tensor) -> list[Tensor]:
        """``model(x, all_heads=True)``."""
        return self(x, all_heads=True)

    def forward_time(self, x: Tensor) -> Tensor:
        """Logits (T, B, K) of the last head read after every timestep, for :func:`trevsnn.temporal_loss`.

        With ``readout="mean"`` too they are each timestep's own, and their mean over time is what :meth:`forward` gives.
        """
        head = self.heads[-1]
        read = self._run(x, [(head, t) for t in range(self.config.timesteps)])
        return torch.stack([head(rates) for rates in read])

    @torch.no_grad()
    def forward_with_rates(self, x: Tensor) -> tuple[Tensor, FiringRates]:
        """Logits (B, K) as :meth:`forward` gives them, and the firing rates of the same pass."""
        transforms, alphas, inputs = self._recurrence(x)
        head, rates, logits = self.heads[-1], [], []
        with counting_hidden_spikes(self.levels) as counts_LTN:
            for t, states in enumerate(unroll(transforms, alphas, inputs, sees=self._sees)):
                if t in self.config.read_timesteps:
                    logits.append(head(pool_of(head)(states[-1])))
                rates.append(torch.stack([share(spike(state)) for state in states]))
        hidden = [torch.stack([count.rate() for blocks in level for count in blocks]) for level in counts_LTN]
        hidden_LTN = torch.stack(hidden).unflatten(1, (self.config.timesteps, -1))
        return mean_over_time(logits), FiringRates(torch.stack(rates, dim=1), hidden_LTN)

    def _run(self, x: Tensor, reads: list[tuple[nn.Module, int]]) -> list[Tensor]:
        """What each head is given of the top level's state after its timestep."""
        if is_left_alone(self._backprop, x.device):
            return as_it_is(self._run, x, reads)
        transforms, alphas, inputs = self._recurrence(x)
        views: Sequence[View | None] = [None] * len(self.levels)
        if self._mode() != "autograd" and torch.is_grad_enabled():
            views = self._views() if self._mode() == "exact" else [SPIKE] * len(self.levels)
        readouts = [
            Readout(t, head.pool_spikes, seen=True)
            if views[-1] and reads_plain_spikes(head)
            else Readout(t, pool_of(head))
            for head, t in reads
        ]
        _, values = run(
            transforms, alphas, inputs, sees=self._sees, views=views,
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
                        stacklevel=4,
                    )
        return views

    def _steps(self) -> Iterator[tuple[int, int, LevelStep]]:
        for level, module in enumerate(self.levels):
            for t, step in enumerate(module.steps):  # type: ignore[arg-type]
                yield level, t, step

    def stream(self, batch: int) -> Stream:
        """Begin clips of ``batch`` event cameras whose frames come one at a time; see :class:`trevsnn.network.stream.Stream`.

        Raises:
            ValueError: the network is one of images, or in training mode, where it needs the statistics of a batch.
        """
        positive("batch", batch)
        if self.config.input != "event":
            raise ValueError("stream is for networks with input='event'; give an image to the network itself.")
        if self.training:
            raise ValueError("stream needs the network in evaluation mode: call model.eval() first.")
        head = self.heads[-1]
        return Stream(
            *self._transforms(),
            self._sees,
            lambda state: head(pool_of(head)(state)),
            (batch, self.config.in_chans or 0),
            mean=self.config.readout == "mean",
        )

    def _recurrence(self, x: Tensor) -> tuple[list[list[Transform | Constant]], list[list[Alpha] | None], list[Tensor]]:
        """F[l,t], alpha[l,t] and x[t] of all timesteps."""
        self._check(x)
        image = self.config.input == "image"
        transforms, alphas = self._transforms()
        inputs = [self._encode(x)] * self.config.timesteps if image else list(x.unbind(1))
        if self.config.keep is not None and self._mode() == "exact" and torch.is_grad_enabled():
            choose_kept(transforms, inputs[0], self.config.keep, self.frozen)
        return self._with_constants(transforms), alphas, inputs

    def _transforms(self) -> tuple[list[list[Transform]], list[list[Alpha] | None]]:
        """F[l,t] and alpha[l,t] of all timesteps, the alphas kept away from 0."""
        levels: list[Level] = list(self.levels)  # type: ignore[arg-type]
        timesteps = range(self.config.timesteps)
        slice_bytes, kernels = self.config.slice_bytes, self.config.kernels
        transforms = [
            [
                Transform(level.steps[t], level.shared, slice_bytes, kernels, f"levels.{i}.steps.{t}")  # type: ignore[arg-type]
                for i, level in enumerate(levels)
            ]
            for t in timesteps
        ]
        return transforms, [None if t == 0 else [level.alpha(t) for level in levels] for t in timesteps]

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

    def _with_all_heads_used(self, logits: Tensor) -> Tensor:
        """The logits of the last head, with a gradient of 0 for the other heads where DistributedDataParallel waits for one."""
        ddp = DistributedDataParallel._get_active_ddp_module()
        if ddp is None or ddp.find_unused_parameters or not torch.is_grad_enabled():
            return logits
        unused = [p for head in self.heads[:-1] for p in head.parameters() if p.requires_grad]  # type: ignore[union-attr]
        return logits + sum(0 * p.sum() for p in unused) if unused else logits

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
