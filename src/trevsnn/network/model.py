"""The temporal reversible spiking network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trevsnn.checks import choice, positive
from trevsnn.network.blocks import Level, LevelStep, Link
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.encoders import AnnealedLeakyReLU, ImageEncoder, event_projection, image_projection
from trevsnn.network.heads import AuxiliaryHead, LastHead
from trevsnn.network.hub import HubModel
from trevsnn.network.rates import FiringRates, counting_hidden_spikes
from trevsnn.network.slicing import encoder_slices, fast_layout, in_slices, sliced
from trevsnn.network.spike import pack, spike
from trevsnn.network.stream import Stream
from trevsnn.network.transform import Transform
from trevsnn.reversible import BACKPROP_MODES, Backprop, run, unroll
from trevsnn.reversible.inversion import read_alpha
from trevsnn.reversible.plan import Readout

AUXILIARY_HEADS = 3


class TRevSNN(nn.Module, HubModel):
    """Temporal reversible spiking neural network (Hu et al., ICML 2024).

    State of level l after timestep t: ``c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t](c[l-1,t], c[l+1,t-1])``, with the
    encoded input x[t] below the lowest level. Images have a head after each quarter of the timesteps, events one after
    the last.

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

        def above(t: int, level: int) -> nn.Module | None:
            if t == 0 or level == len(channels) - 1:
                return None
            return Link(channels[level + 1], channels[level], kernel_size=1, stride=1)

        self.levels = nn.ModuleList(
            Level(
                [LevelStep(width, config.kernel_size, below(level), above(t, level)) for t in range(config.timesteps)],
                width,
                config.kernel_size,
            )
            for level, width in enumerate(channels)
        )
        auxiliary = [AuxiliaryHead(channels[-1], config.num_classes) for _ in range(AUXILIARY_HEADS if image else 0)]
        self.heads = nn.ModuleList(
            [*auxiliary, LastHead(channels[-1], config.num_classes, 1 if image else config.timesteps)]
        )

    @property
    def backprop(self) -> Backprop:
        """What the backward pass rests on: the config's mode, unless :meth:`set_backprop` chose another."""
        return self._backprop

    def set_backprop(self, mode: Backprop) -> None:
        """Choose "exact", "reversible" or "autograd" for the passes to come; weights and results do not depend on it."""
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

    def head_timesteps(self) -> list[int]:
        """The timestep after which each head reads the top level: image heads after each quarter of them."""
        n, timesteps = len(self.heads), self.config.timesteps
        return [-(-timesteps * (i + 1) // n) - 1 for i in range(n)]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of the last head.

        Args:
            x: pictures (B, in_chans, H, W), or event frames (B, T, in_chans, H, W); of the weights' floating dtype.

        Raises:
            ValueError: x has another shape or is not floating point.
        """
        head = self._get_last_head()
        (pooled,) = self._run(x, [(self.config.timesteps - 1, head.pool)])
        return head(pooled)

    def forward_heads(self, x: Tensor) -> list[Tensor]:
        """Logits (B, K) of every head in the order of time: four for images, one for events. See :meth:`forward`."""
        heads: list[AuxiliaryHead | LastHead] = list(self.heads)  # type: ignore[assignment]
        pooled = self._run(x, [(t, head.pool) for head, t in zip(heads, self.head_timesteps(), strict=True)])
        return [head(rates) for head, rates in zip(heads, pooled, strict=True)]

    def forward_time(self, x: Tensor) -> Tensor:
        """Logits (T, B, K) of the last head read after every timestep, for :func:`trevsnn.temporal_loss`."""
        head = self._get_last_head()
        return torch.stack(
            [head(pooled) for pooled in self._run(x, [(t, head.pool) for t in range(self.config.timesteps)])]
        )

    @torch.no_grad()
    def forward_with_rates(self, x: Tensor) -> tuple[Tensor, FiringRates]:
        """Logits (B, K) as :meth:`forward` gives them, and the firing rates of the same pass."""
        transforms, alphas, inputs = self._recurrence(x)
        rates, states = [], []
        with counting_hidden_spikes(self.levels) as counts_LTN:
            for states in unroll(transforms, alphas, inputs):
                rates.append(torch.stack([spike(state).double().mean() for state in states]))
        hidden = [torch.stack([count.rate() for blocks in level for count in blocks]) for level in counts_LTN]
        hidden_LTN = torch.stack(hidden).unflatten(1, (self.config.timesteps, -1))
        head = self._get_last_head()
        return head(head.pool(states[-1])), FiringRates(torch.stack(rates, dim=1), hidden_LTN)

    def _run(self, x: Tensor, readouts: list[Readout]) -> list[Tensor]:
        transforms, alphas, inputs = self._recurrence(x)
        _, values = run(
            transforms,
            alphas,
            inputs,
            backprop=self._mode(),
            code=pack,
            readouts=readouts,
            once=True,
            read_alpha=self.read_alpha,
        )
        return values

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
        head = self._get_last_head()
        return Stream(*self._transforms(), lambda state: head(head.pool(state)), (batch, self.config.in_chans or 0))

    def _recurrence(self, x: Tensor) -> tuple[list[list[Transform]], list[list[Tensor] | None], list[Tensor]]:
        """F[l,t], alpha[l,t] and x[t] of all timesteps."""
        self._check(x)
        image = self.config.input == "image"
        return *self._transforms(), [self._encode(x)] * self.config.timesteps if image else list(x.unbind(1))

    def _transforms(self) -> tuple[list[list[Transform]], list[list[Tensor] | None]]:
        """F[l,t] and alpha[l,t] of all timesteps, the alphas kept away from 0."""
        levels: list[Level] = list(self.levels)  # type: ignore[arg-type]
        timesteps = range(self.config.timesteps)
        slice_bytes = self.config.slice_bytes
        transforms = [[Transform(level.steps[t], level.shared, slice_bytes) for level in levels] for t in timesteps]  # type: ignore[arg-type]
        return transforms, [None if t == 0 else [level.bounded_alpha(t) for level in levels] for t in timesteps]

    def _mode(self) -> Backprop:
        """What this pass's backward pass rests on. An exported program has none, and consists of plain operations."""
        return "autograd" if torch.compiler.is_exporting() else self._backprop

    def _encode(self, image: Tensor) -> Tensor:
        encoder = self.encoder
        assert isinstance(encoder, ImageEncoder)
        rows = encoder_slices(encoder, image, self.config.slice_bytes)
        if self._mode() == "autograd" or not torch.is_grad_enabled():
            return in_slices(lambda part: encoder(fast_layout(part)), image, rows)
        return sliced(encoder, image, rows, "encoder")  # type: ignore[call-arg]

    def _get_last_head(self) -> LastHead:
        head = self.heads[-1]
        assert isinstance(head, LastHead)
        return head

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
