"""The network for inference: the same function with every normalisation and fixed factor inside a convolution."""

from __future__ import annotations

import copy
from functools import partial

import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor, nn

from trevsnn.network.blocks import Expand, Level, LevelStep, Link, PointwiseDepthwise
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.encoders import AnnealedLeakyReLU, ImageEncoder
from trevsnn.network.heads import LastHead
from trevsnn.network.model import TRevSNN
from trevsnn.network.spike import THRESHOLD, spikes_of
from trevsnn.reversible import unroll


def fires(potential: Tensor) -> Tensor:
    """``s(v) = 1 if v >= 0.5 else 0``, in the potential's dtype; for exporters in operations that all of them know."""
    if torch.compiler.is_compiling():
        return (potential >= THRESHOLD).to(potential.dtype)
    return spikes_of(potential, potential.dtype)


class FoldedTRevSNN(nn.Module):
    """A :class:`trevsnn.TRevSNN` in evaluation mode as convolutions, additions and thresholds alone; see :func:`fold`.

    Modules have the names they have in the network they come from. There is no backward pass.

    Args:
        config: of the network.
        encoder: of images; Identity for events, whose frames go to the lowest level's ``below``.
        levels: lowest first.
        head: from the top level's spikes after the last step to logits.
    """

    def __init__(self, config: TRevSNNConfig, encoder: nn.Module, levels: list[FoldedLevel], head: FoldedHead) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.levels = nn.ModuleList(levels)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, in_chans, H, W) or frames (B, T, in_chans, H, W), float, to logits (B, K)."""
        steps = range(self.config.timesteps)
        inputs = [self.encoder(x)] * len(steps) if self.config.input == "image" else list(x.unbind(1))
        levels: list[FoldedLevel] = list(self.levels)  # type: ignore[arg-type]
        transforms = [[partial(level, t) for level in levels] for t in steps]
        alphas = [None if t == 0 else [level.alphas[t - 1] for level in levels] for t in steps]
        *_, states = unroll(transforms, alphas, inputs)
        return self.head(states[-1])


class FoldedLevel(nn.Module):
    """One level: its steps, the half-block they share, and its alphas."""

    def __init__(self, steps: list[FoldedStep], shared: nn.ModuleDict, alphas: list[Tensor]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.shared = shared
        self.alphas = nn.ParameterList(alphas)

    def forward(self, step: int, below: Tensor, above: Tensor | None) -> Tensor:
        """F[l,t](below, above), (B, C, H, W)."""
        return self.steps[step](below, above, self.shared)


class FoldedStep(nn.Module):
    """``F = Block2(Block1(below + above))`` with ``Block(v) = v + DW2(PW2(s(PW1(DW1(s(v))))))``."""

    def __init__(
        self, below: nn.Module, spiking: bool, above: nn.Conv2d | None, expand1: nn.ModuleDict, project1: nn.ModuleDict,
        expand2: nn.ModuleDict,
    ) -> None:  # fmt: skip
        super().__init__()
        self.below, self.spiking, self.above = below, spiking, above
        self.expand1, self.project1, self.expand2 = expand1, project1, expand2

    def forward(self, below: Tensor, above: Tensor | None, shared: nn.ModuleDict) -> Tensor:
        potential = self.below(fires(below) if self.spiking else below)
        if above is not None and self.above is not None:
            link = self.above(fires(above))
            if link.shape[2:] != potential.shape[2:]:
                link = nn.functional.interpolate(link, size=potential.shape[2:], mode="nearest")
            potential = potential + link
        potential = potential + _project(self.project1, _expand(self.expand1, potential))
        return potential + _project(shared, _expand(self.expand2, potential))


class FoldedHead(nn.Module):
    """Spikes of the top state, their rate in each channel, and one linear map (two where the slope is not 1)."""

    def __init__(self, divisor: int, classifier: nn.Module) -> None:
        super().__init__()
        self.divisor = divisor
        self.classifier = classifier

    def forward(self, state: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K)."""
        return self.classifier(fires(state / self.divisor if self.divisor != 1 else state).mean((2, 3)))


def _expand(half: nn.ModuleDict, potential: Tensor) -> Tensor:
    return half["pw1"](half["dw1"](fires(potential)))


def _project(half: nn.ModuleDict, hidden: Tensor) -> Tensor:
    return half["dw2"](half["pw2"](fires(hidden)))


def fold(model: TRevSNN) -> FoldedTRevSNN:
    """The evaluation-mode network with fewer operations, equal but for rounding.

    Into the convolutions go the running statistics of BatchNorm, the standardisation of weights and their gains, and
    gamma. The auxiliary heads are dropped. At slope 1 the last head's two linear maps become one. All is computed in
    float64 and rounded once, so that a potential within rounding of a threshold is all that can differ
    (:func:`spike_differences` counts those).

    The encoder's two convolutions stay two: what the second one pads with zeros is not what one merged convolution
    would see there, so that merging them would change the picture's border.

    Args:
        model: trained; it is not changed.

    Returns:
        In evaluation mode, of the model's dtype and device, channels-last.
    """
    original, model = model, copy.deepcopy(model).double().eval()
    levels: list[Level] = list(model.levels)  # type: ignore[arg-type]
    head = model.heads[-1]
    assert isinstance(head, LastHead)
    with torch.no_grad():
        folded = FoldedTRevSNN(
            model.config, _encoder(model.encoder), [_level(level) for level in levels], _head(head)
        )  # fmt: skip
    weight = next(original.parameters())
    folded = folded.to(weight.device, weight.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded.eval().requires_grad_(False)


def _encoder(encoder: nn.Module) -> nn.Module:
    if not isinstance(encoder, ImageEncoder):
        return nn.Identity()
    return nn.Sequential(plain_conv(encoder.stem.conv), encoder.stem.activation, _source(encoder.projection))


def _level(level: Level) -> FoldedLevel:
    steps: list[LevelStep] = list(level.steps)  # type: ignore[arg-type]
    alphas = [level.bounded_alpha_(t).detach().clone() for t in range(1, len(steps))]
    return FoldedLevel([_step(step) for step in steps], _projecting(level.shared), alphas)


def _step(step: LevelStep) -> FoldedStep:
    above = _link(step.above) if isinstance(step.above, Link) else None
    spiking = isinstance(step.below, Link)
    return FoldedStep(
        _source(step.below), spiking, above, _expanding(step.expand1), _projecting(step.project1, step.gamma),
        _expanding(step.expand2),
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
    """``BN(conv(x)) = (w / sqrt(var + eps)) conv(x) + b - w mean / sqrt(var + eps)``, with BN's w and b."""
    conv, bn = plain_conv(link.conv), link.bn
    assert bn.running_mean is not None
    assert bn.running_var is not None
    factor = bn.weight * (bn.running_var + bn.eps).rsqrt()
    _scale(conv, factor)
    conv.bias = nn.Parameter(bn.bias - factor * bn.running_mean)
    return conv


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
    """The convolution as a plain one; the weight of a :class:`timm.layers.ScaledStdConv2d` standardised, with its gain:
    ``gain / sqrt(fan-in) * (w - mean) / sqrt(var + eps)`` per output channel (Brock et al., ICLR 2021)."""
    weight = conv.weight.detach()
    if isinstance(conv, ScaledStdConv2d):
        var, mean = torch.var_mean(weight, (1, 2, 3), correction=0, keepdim=True)
        weight = conv.gain.detach() * conv.scale * (weight - mean) * (var + conv.eps).rsqrt()
    plain = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups,  # type: ignore[arg-type]
        bias=conv.bias is not None, dtype=weight.dtype, device=weight.device,
    )  # fmt: skip
    plain.weight = nn.Parameter(weight.clone())
    if conv.bias is not None:
        plain.bias = nn.Parameter(conv.bias.detach().clone())
    return plain


def _scale(conv: nn.Conv2d, factor: Tensor) -> None:
    conv.weight.mul_(factor.view(-1, 1, 1, 1))
    if conv.bias is not None:
        conv.bias.mul_(factor)


@torch.no_grad()
def spike_differences(model: TRevSNN, folded: FoldedTRevSNN, x: Tensor) -> tuple[Tensor, int]:
    """How many spikes of a forward pass differ between a network and its folded form, for each item (B,), and of how
    many in all.

    Counted are the spikes that any convolution of a block or link is given, and those that the head is given, of which
    opposite differences within a channel cancel.
    """
    last = model.heads[-1]
    assert isinstance(last, LastHead)
    readers = ((model.eval(), last.classifier1), (folded, folded.head.classifier))
    maps, rates = zip(*(_spiking_inputs(network, head, x) for network, head in readers), strict=True)
    pairs = [(a, b) for ours, theirs in zip(*maps, strict=True) for a, b in zip(ours, theirs, strict=True)]
    # A shared convolution is given the items of every timestep, one after the other.
    differing = [(a != b).flatten(1).sum(1).view(-1, len(x)).sum(0) for a, b in pairs]
    places = pairs[-1][0].shape[2] * pairs[-1][0].shape[3]  # of the top level
    differing.append(((rates[0] - rates[1]).abs() * places).round().long().sum(1))
    return torch.stack(differing).sum(0), sum(a.numel() for a, _ in pairs) + rates[0].numel() * places


def _note(into: list[Tensor], module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    into.append(inputs[0] > 0)


def _spiking_inputs(network: nn.Module, head: nn.Module, x: Tensor) -> tuple[list[list[Tensor]], Tensor]:
    """The spikes convolutions are given, by name, and the rates (B, C) that ``head``, the network's own, is given."""
    found: dict[str, list[Tensor]] = {}
    rates: list[Tensor] = []
    handles = [head.register_forward_pre_hook(lambda _, inputs: rates.append(inputs[0].flatten(1)))]
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d) or not name.startswith("levels."):
            continue
        inputs: list[Tensor] = []
        found[name.removesuffix(".conv")] = inputs  # a link's convolution is the link itself after folding
        handles.append(module.register_forward_pre_hook(partial(_note, inputs)))
    network(x)
    for handle in handles:
        handle.remove()
    spiking = [name for name in sorted(found) if name.rpartition(".")[2] in ("dw1", "pw2", "below", "above")]
    # A level's inputs come in slices of the batch.
    return [[torch.cat(found[name])] for name in spiking if found[name]], rates[0]
