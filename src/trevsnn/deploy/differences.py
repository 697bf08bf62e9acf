"""How many spikes change when a network is folded."""

from __future__ import annotations

import re
from functools import partial

import torch
from torch import Tensor, nn

from trevsnn.deploy.folded import FoldedTRevSNN
from trevsnn.network.heads import LastHead, mean_over_time
from trevsnn.network.model import TRevSNN

_TAKES_SPIKES = re.compile(r"\.(dw1|pw2|below|above|further\.\d+)$")


@torch.no_grad()
def spike_differences(model: TRevSNN, folded: FoldedTRevSNN, x: Tensor) -> tuple[Tensor, int]:
    """How many spikes of a forward pass differ between a network and its folded form.

    Counted are the input spikes of every convolution of a block or link, and those of the head. The head is given their
    rate in each channel, so opposite differences within a channel cancel there; with ``readout="mean"`` of all timesteps.

    Args:
        model: it is put into evaluation mode.
        folded: of that model.
        x: pictures (B, in_chans, H, W) or frames (B, T, in_chans, H, W), of the networks' dtype.

    Returns:
        For each item how many differ, (B,), int64; and of how many spikes of all items.
    """
    last = model.heads[-1]
    assert isinstance(last, LastHead)
    networks = ((model.eval(), last.classifier1), (folded, folded.head.classifier))
    spikes, rates_BC = zip(*(_spiking_inputs(network, head, x) for network, head in networks), strict=True)
    pairs = list(zip(*spikes, strict=True))
    # A shared convolution's input holds all items of the first timestep, then those of the next.
    differing = [(a != b).flatten(1).sum(1).view(-1, len(x)).sum(0) for a, b in pairs]
    # Of the top level, which the head reads, over the timesteps after which it does.
    pixels = pairs[-1][0].shape[2] * pairs[-1][0].shape[3] * len(model.config.read_timesteps)
    differing.append(((rates_BC[0] - rates_BC[1]).abs() * pixels).round().long().sum(1))
    return torch.stack(differing).sum(0), sum(a.numel() for a, _ in pairs) + rates_BC[0].numel() * pixels


def _spiking_inputs(network: nn.Module, head: nn.Module, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """The spikes every convolution is given, in the order of their names, and the rates (B, C) ``head`` is given, a mean over
    time where it is given several."""
    rates: list[Tensor] = []
    handles = [head.register_forward_pre_hook(lambda _, inputs: rates.append(inputs[0].flatten(1)))]
    parts: dict[str, list[Tensor]] = {}
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d) or not name.startswith("levels."):
            continue
        folded_name = name.removesuffix(".conv")  # a link's convolution is the link itself after folding
        if _TAKES_SPIKES.search(folded_name):
            parts[folded_name] = []
            handles.append(module.register_forward_pre_hook(partial(_keep_spikes, parts[folded_name])))
    network(x)
    for handle in handles:
        handle.remove()
    # A convolution is called for slices of the batch, and not at all where a timestep has no level above.
    return [torch.cat(parts[name]) for name in sorted(parts) if parts[name]], mean_over_time(rates)


def _keep_spikes(spikes: list[Tensor], module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    spikes.append(inputs[0] > 0)
