"""The folded network, for inference: the same function with every normalisation and fixed factor inside a convolution."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trevsnn.deploy.foldable import check_foldable
from trevsnn.network.blocks import Expand, Level, LevelStep, Link, PointwiseDepthwise, fuse, linked
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.encoders import AnnealedLeakyReLU, ImageEncoder
from trevsnn.network.heads import LastHead, mean_over_time
from trevsnn.network.model import TRevSNN
from trevsnn.network.slicing import fast_format
from trevsnn.network.spike import SPIKE, THRESHOLD
from trevsnn.network.transform import sees_of
from trevsnn.reversible import unroll


def inference_spike(potential: Tensor) -> Tensor:
    """``s(v) = 1 if v >= 0.5 else 0`` in the potential's dtype, without a backward pass.

    Exporters get it in operations that every one of them knows.
    """
    if torch.compiler.is_compiling():
        return (potential >= THRESHOLD).to(potential.dtype)
    return SPIKE.fire(potential)


class FoldedTRevSNN(nn.Module):
    """A :class:`trevsnn.TRevSNN` in evaluation mode, of convolutions, additions and thresholds alone; see :func:`fold`.

    ``c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t](c[l-1,t], c[l+1,t-1])``, as :func:`trevsnn.reversible.unroll` computes it, and
    further links and no alpha as the config says. Modules have the names they have in the network they come from. There is no backward pass.
    """

    def __init__(self, config: TRevSNNConfig, encoder: nn.Module, levels: list[FoldedLevel], head: FoldedHead) -> None:
        """Of parts that are folded.

        Args:
            config: of the network.
            encoder: of pictures; Identity for event frames, which go to the lowest level's ``below``.
            levels: lowest first.
            head: from the top level's states to logits.
        """
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.levels = nn.ModuleList(levels)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, in_chans, H, W) or frames (B, T, in_chans, H, W), of the network's dtype, to logits (B, K)."""
        inputs = [self.encoder(x)] * self.config.timesteps if self.config.input == "image" else list(x.unbind(1))
        states = self.read_states(inputs, lambda _, level, t: partial(level, t), lambda _, level, t: level.alpha(t))
        return self.head([self.head.pool(state) for state in states])

    def read_states(
        self, inputs: Sequence[Any], transform: Callable[[int, FoldedLevel, int], Callable[..., Any]],
        alpha: Callable[[int, FoldedLevel, int], Any],
    ) -> Iterator[Any]:  # fmt: skip
        """The top level's state after every timestep that the head reads: tensors, or whatever stands for them in a graph.

        Args:
            inputs: x[t], of every timestep.
            transform: from l, the level and t to F[l,t], a function of what it sees.
            alpha: likewise to alpha[l,t] of t >= 1, by which a state is multiplied; None for 1.
        """
        levels: list[tuple[int, FoldedLevel]] = list(enumerate(self.levels))  # type: ignore[arg-type]
        timesteps = range(self.config.timesteps)
        transforms = [[transform(index, level, t) for index, level in levels] for t in timesteps]
        alphas = [None if t == 0 else [alpha(index, level, t) for index, level in levels] for t in timesteps]
        for t, states in enumerate(unroll(transforms, alphas, inputs, sees=sees_of(self.config))):
            if t in self.config.read_timesteps:
                yield states[-1]


class FoldedLevel(nn.Module):
    """One level: its transform at every timestep, the half-block they share, and alpha[l,t] of t >= 1, (1, C, 1, 1), if any."""

    def __init__(self, steps: list[FoldedStep], shared: nn.ModuleDict, alphas: list[Tensor]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.shared = shared
        self.alphas = nn.ParameterList(alphas)

    def alpha(self, t: int) -> Tensor | None:
        """alpha[l,t] of t >= 1; None where it is 1."""
        return self.alphas[t - 1] if len(self.alphas) else None

    def forward(self, t: int, below: Tensor, *above: Tensor | None) -> Tensor:
        """F[l,t](below, above), (B, C, H, W)."""
        return self.steps[t](below, above, self.shared)


class FoldedStep(nn.Module):
    """``F[l,t] = Block2(Block1(below + above))`` with ``Block(v) = v + DW2(PW2(s(PW1(DW1(s(v))))))``.

    Args:
        below: from the lower level's spikes, or from the input, to (B, C, H, W).
        spiking: ``below`` is a link, which takes spikes.
        above: from the spikes of the level above to (B, C, h, w), which is upsampled to H x W; None where there is none.
        further: likewise from the levels above that one, lowest first.
        expand1, project1: DW1 and PW1, PW2 and DW2 of the first block.
        expand2: DW1 and PW1 of the second block, whose PW2 and DW2 are the level's shared ones.
    """

    def __init__(
        self, below: nn.Module, spiking: bool, above: nn.Conv2d | None, further: Sequence[nn.Conv2d],
        expand1: nn.ModuleDict, project1: nn.ModuleDict, expand2: nn.ModuleDict,
    ) -> None:  # fmt: skip
        super().__init__()
        self.below, self.spiking, self.above = below, spiking, above
        self.further = nn.ModuleList(further)
        self.expand1, self.project1, self.expand2 = expand1, project1, expand2

    def forward(self, below: Tensor, above: Sequence[Tensor | None], shared: nn.ModuleDict) -> Tensor:
        """(B, C, H, W), of the states, or input, of the levels below and above."""
        links = linked((self.above, *self.further), above)
        potential = self.below(inference_spike(below) if self.spiking else below)
        potential = fuse(potential, *(link(inference_spike(state)) for link, state in links))
        potential = potential + _project(self.project1, _expand(self.expand1, potential))
        return potential + _project(shared, _expand(self.expand2, potential))


class FoldedHead(nn.Module):
    """The mean over time of ``classifier(r)``, with ``r = mean over the pixels of s(c / divisor)``.

    At slope 1 the classifier is one linear map ``W r + b``, so that ``mean_t(W r[t] + b) = W mean_t(r[t]) + b``, which is what
    is computed. At another slope it is two with a leaky ReLU between them, and is run for every timestep that is read.
    """

    def __init__(self, divisor: int, classifier: nn.Module) -> None:
        super().__init__()
        self.divisor = divisor
        self.classifier = classifier

    def pool(self, state: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C), the firing rate r of each channel."""
        return inference_spike(state / self.divisor if self.divisor != 1 else state).mean((2, 3))

    def forward(self, rates: Sequence[Tensor]) -> Tensor:
        """(B, C) of each timestep that is read -> (B, K)."""
        if isinstance(self.classifier, nn.Linear):
            return self.classifier(mean_over_time(rates))
        return mean_over_time([self.classifier(rate) for rate in rates])


def _expand(half: nn.ModuleDict, potential: Tensor) -> Tensor:
    """``PW1(DW1(s(v)))``, (B, 4C, H, W)."""
    return half["pw1"](half["dw1"](inference_spike(potential)))


def _project(half: nn.ModuleDict, hidden: Tensor) -> Tensor:
    """``DW2(PW2(s(hidden)))``, (B, C, H, W)."""
    return half["dw2"](half["pw2"](inference_spike(hidden)))


def fold(model: TRevSNN) -> FoldedTRevSNN:
    """The evaluation-mode network with fewer operations, equal but for rounding.

    BatchNorm's running statistics, the standardisation of weights with their gains, and gamma go into the convolutions.
    The auxiliary heads are dropped. At slope 1 the last head's two linear maps become one. Weights are folded in float64
    and rounded once. Still a potential within rounding of the threshold may fall on its other side, and other spikes
    change with it; :func:`trevsnn.deploy.differences.spike_differences` counts them.

    The encoder's two convolutions stay two. The second pads the first one's output with zeros; a merged convolution would
    compute that output beyond the picture instead, and the border would change.

    Args:
        model: trained; it is not changed.

    Returns:
        In evaluation mode, of the model's dtype and device, channels-last.

    Raises:
        ValueError: a BatchNorm has no running statistics; a module of the encoder, the levels or the last head is not one of this
            network's own, or has a hook or a forward of its own. The network itself and torch.export of it do then.
    """
    check_foldable(model)
    original, model = model, copy.deepcopy(model).double().eval()
    levels: list[Level] = list(model.levels)  # type: ignore[arg-type]
    head = model.heads[-1]
    assert isinstance(head, LastHead)
    with torch.no_grad():
        folded = FoldedTRevSNN(model.config, _encoder(model.encoder), [_level(level) for level in levels], _head(head))
    weight = next(original.parameters())
    folded = folded.to(weight.device, weight.dtype).to(memory_format=fast_format(weight.device))  # type: ignore[call-overload]
    return folded.eval().requires_grad_(False)


def _encoder(encoder: nn.Module) -> nn.Module:
    if not isinstance(encoder, ImageEncoder):
        return nn.Identity()
    return nn.Sequential(plain_conv(encoder.stem.conv), encoder.stem.activation, _source(encoder.projection))


def _level(level: Level) -> FoldedLevel:
    transforms: list[LevelStep] = list(level.steps)  # type: ignore[arg-type]
    alphas = [alpha for t in range(1, len(transforms)) if (alpha := level.alpha(t)) is not None]
    return FoldedLevel([_transform(transform) for transform in transforms], _projecting(level.shared), alphas)


def _transform(part: LevelStep) -> FoldedStep:
    above = _link(part.above) if isinstance(part.above, Link) else None
    return FoldedStep(
        _source(part.below), isinstance(part.below, Link), above, [_link(link) for link in part.further],  # type: ignore[arg-type]
        _expanding(part.expand1), _projecting(part.project1, part.gamma), _expanding(part.expand2),
    )  # fmt: skip


def _source(module: nn.Module) -> nn.Module:
    if isinstance(module, Link):
        return _link(module)
    return plain_conv(module) if isinstance(module, nn.Conv2d) else nn.Identity()


def _expanding(half: Expand) -> nn.ModuleDict:
    return nn.ModuleDict({"dw1": plain_conv(half.dw1), "pw1": plain_conv(half.pw1)})


def _projecting(half: PointwiseDepthwise, gamma: Tensor | None = None) -> nn.ModuleDict:
    dw2 = plain_conv(half.dw2)
    if gamma is not None:
        _scale(dw2, gamma.flatten())
    return nn.ModuleDict({"pw2": plain_conv(half.pw2), "dw2": dw2})


def _link(link: Link) -> nn.Conv2d:
    """``BN(conv(x)) = g conv(x) + (b - g mean)`` with ``g = w / sqrt(var + eps)`` and BN's w and b, per channel."""
    return fuse_conv_bn_eval(link.conv, link.bn)


def _head(head: LastHead) -> FoldedHead:
    """``W2 (W1 r + b1) + b2 = (W2 W1) r + (W2 b1 + b2)`` where the leaky ReLU between is the identity."""
    first, second = (_linear(plain_conv(conv)) for conv in (head.classifier1, head.classifier2))
    if head.activation.slope != 1.0:
        activation = AnnealedLeakyReLU()
        activation.slope = head.activation.slope
        return FoldedHead(head.divisor, nn.Sequential(first, activation, second))
    merged = nn.Linear(first.in_features, second.out_features, dtype=first.weight.dtype)
    merged.weight.copy_(second.weight @ first.weight)
    merged.bias.copy_(second.weight @ first.bias + second.bias)
    return FoldedHead(head.divisor, merged)


def _linear(conv: nn.Conv2d) -> nn.Linear:
    linear = nn.Linear(conv.in_channels, conv.out_channels, dtype=conv.weight.dtype)
    linear.weight.copy_(conv.weight.flatten(1))
    assert conv.bias is not None
    linear.bias.copy_(conv.bias)
    return linear


def plain_conv(conv: nn.Conv2d) -> nn.Conv2d:
    """A copy as a plain convolution. The weight of a :class:`timm.layers.ScaledStdConv2d` becomes what it computes with:
    ``gain / sqrt(fan-in) * (w - mean) / sqrt(var + eps)`` for each output channel (Brock et al., ICLR 2021)."""
    weight = conv.weight.detach()
    if isinstance(conv, ScaledStdConv2d):
        var, mean = torch.var_mean(weight, (1, 2, 3), correction=0, keepdim=True)
        weight = conv.gain.detach() * conv.scale * (weight - mean) * (var + conv.eps).rsqrt()
    plain = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups,  # type: ignore[arg-type]
        bias=conv.bias is not None, padding_mode=conv.padding_mode, dtype=weight.dtype, device=weight.device,
    )  # fmt: skip
    plain.weight = nn.Parameter(weight.clone())
    if conv.bias is not None:
        plain.bias = nn.Parameter(conv.bias.detach().clone())
    return plain


def _scale(conv: nn.Conv2d, factor: Tensor) -> None:
    """``factor * conv(x)``, with a factor for each output channel, in place."""
    conv.weight.mul_(factor.view(-1, 1, 1, 1))
    if conv.bias is not None:
        conv.bias.mul_(factor)
