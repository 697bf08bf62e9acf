"""The temporal reversible spiking network."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trevsnn.checks import positive
from trevsnn.network.backbone import Backbone, data_config, make_heads
from trevsnn.network.blocks import Level, LevelStep, Link
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.encoders import ImageEncoder, event_projection, image_projection
from trevsnn.network.heads import mean_over_time, pool_of, reads_plain_spikes
from trevsnn.network.hub import HubModel
from trevsnn.network.rates import FiringRates, counting_hidden_spikes, share
from trevsnn.network.spike import spike
from trevsnn.network.start import derived_start
from trevsnn.network.stream import Stream
from trevsnn.network.transform import sees_of
from trevsnn.network.trunk import Read
from trevsnn.reversible import unroll


class TRevSNN(Backbone, HubModel):
    """Temporal reversible spiking neural network (Hu et al., ICML 2024).

    State of level l after timestep t: ``c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t](c[l-1,t], c[l+1,t-1])``, with the
    encoded input x[t] below the lowest level; with ``links="all"`` F[l,t] sees c[i,t-1] of every i > l, with ``alphas="one"``
    there is no alpha. Images have a head after each quarter of the timesteps, events one after the last, or, with
    ``readout="mean"``, one after every timestep, the same each time, of whose logits the mean counts.

    Args:
        config: see :class:`TRevSNNConfig`; kept as ``model.config``.

    Attributes:
        pretrained_cfg (dict[str, Any]): input_size, mean, std, crop_pct and so on, as timm's; of networks that come with the
            package what their weights were trained with.

    What cannot be built is refused by :class:`TRevSNNConfig` already, with ValueError.
    """

    config_type = TRevSNNConfig

    def __init__(self, config: TRevSNNConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self._backprop = config.backprop
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
        self.heads = make_heads(config)
        self.pretrained_cfg = data_config(config, self.heads)
        derived_start(self)

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
            ValueError: x has another shape or is not floating point; or, in training mode, a map has but one value of a
                channel, of which there are no batch statistics.
            RuntimeError: PyTorch's own: x is of another floating dtype than the weights, or on another device.
            ReversibilityError: in the backward pass, before it begins: "reversible" with a T and alphas for which its error
                bound fails; see :func:`trevsnn.reversible.run`.
        """
        heads, timesteps = list(self.heads), self.head_timesteps()
        if not all_heads:
            heads, timesteps = heads[-1:], timesteps[-1:]
        read = iter(self._run(x, [(head, t) for head, ts in zip(heads, timesteps, strict=True) for t in ts]))
        logits = [mean_over_time([head(next(read)) for _ in ts]) for head, ts in zip(heads, timesteps, strict=True)]
        return logits if all_heads else self._with_all_heads_used(logits[0])

    def forward_heads(self, x: Tensor) -> list[Tensor]:
        """``model(x, all_heads=True)``: logits (B, K) of every head, for :func:`trevsnn.deep_supervision_loss`.

        Raises:
            ValueError, RuntimeError, ReversibilityError: as :meth:`forward`.
        """
        return self(x, all_heads=True)

    def forward_time(self, x: Tensor) -> Tensor:
        """Logits (T, B, K) of the last head read after every timestep, for :func:`trevsnn.temporal_loss`.

        With ``readout="mean"`` too they are each timestep's own, and their mean over time is what :meth:`forward` gives.

        Args:
            x: as :meth:`forward` takes it.

        Raises:
            ValueError, RuntimeError, ReversibilityError: as :meth:`forward`.
        """
        head = self.heads[-1]
        read = self._run(x, [(head, t) for t in range(self.config.timesteps)])
        return torch.stack([head(rates) for rates in read])

    @torch.no_grad()
    def forward_with_rates(self, x: Tensor) -> tuple[Tensor, FiringRates]:
        """Logits (B, K) as :meth:`forward` gives them, and the firing rates of the same pass, outside autograd.

        Args:
            x: as :meth:`forward` takes it.

        Raises:
            ValueError, RuntimeError: as :meth:`forward`.
        """
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

    @torch.no_grad()
    def state_spikes(self, x: Tensor) -> list[list[Tensor]]:
        """The spikes s(c[l,t]), 0 or 1, (B, C_l, H_l, W_l) of x's dtype: ``spikes[l][t]``, of one forward pass.

        Args:
            x: as :meth:`forward` takes it.

        Raises:
            ValueError: as :meth:`forward`.
        """
        transforms, alphas, inputs = self._recurrence(x)
        steps = unroll(transforms, alphas, inputs, sees=self._sees)
        by_timestep = [[spike(state) for state in states] for states in steps]
        return [list(of_level) for of_level in zip(*by_timestep, strict=True)]

    def _run(self, x: Tensor, reads: list[tuple[nn.Module, int]]) -> list[Tensor]:
        """What each head is given of the top level's state after its timestep."""
        return self._read(
            x, [Read(t, -1, pool_of(head), head.pool_spikes if reads_plain_spikes(head) else None) for head, t in reads]
        )

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

    def _with_all_heads_used(self, logits: Tensor) -> Tensor:
        """The logits of the last head, with a gradient of 0 for the other heads where DistributedDataParallel waits for one."""
        ddp = DistributedDataParallel._get_active_ddp_module()
        if ddp is None or ddp.find_unused_parameters or not torch.is_grad_enabled():
            return logits
        unused = [p for head in self.heads[:-1] for p in head.parameters() if p.requires_grad]  # type: ignore[union-attr]
        return logits + sum(0 * p.sum() for p in unused) if unused else logits
