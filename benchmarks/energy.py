"""Operations of trevsnn and its peers by one counter, and what T costs where the total width stays the same.

    pip install -e '.[bench]'
    python benchmarks/energy.py [--picture FILE]

Weights are new and batch statistics those of random pictures, so firing rates mean nothing here and are not shown. What is
compared are the counts themselves, with those of SpikingJelly's counters beside them, and multiply-accumulates against T.
For a trained network's operations on real data see ``trevsnn measure energy``.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spikformer
from spikingjelly.activation_based.op_counter import DispatchCounterMode, MACCounter, SynOpCounter
from torch import Tensor, nn

from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.deploy.folded import fold
from trevsnn.drawing import BLUE, GREEN, VERMILION, chart, name_lines, plain
from trevsnn.files import write_picture
from trevsnn.measure.operations import count_operations

SIZE = 224
TOTAL_WIDTH = (256, 512, 1024, 1536)  # T times the channels of tiny, whose T is 4
TIMESTEPS = (1, 2, 4, 8)
# SpikingJelly counts BatchNorm and element-wise products as MACs too; here both count convolutions and matrix products.
NOT_COUNTED = {rule: lambda *_: 0 for rule in (torch.ops.aten.mul.Tensor, torch.ops.aten.native_batch_norm.default)}


class OverTime(nn.Module):
    """A peer that is given the picture at every timestep."""

    def __init__(self, net: nn.Module, timesteps: int) -> None:
        super().__init__()
        self.net, self.timesteps = net, timesteps

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self.net)
        return self.net(x.expand(self.timesteps, *x.shape))


def sew(timesteps: int) -> nn.Module:
    """SEW-ResNet-18 with integrate-and-fire neurons (Fang et al., NeurIPS 2021)."""
    net = sew_resnet.sew_resnet18(cnf="ADD", spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan())
    functional.set_step_mode(net, "m")
    return lively(OverTime(net, timesteps))


def ours(timesteps: int, encoding: str) -> nn.Module:
    """T sub-networks of a T-th of the width each, folded."""
    channels = tuple(width // timesteps for width in TOTAL_WIDTH)
    return fold(lively(TRevSNN(TRevSNNConfig(channels=channels, timesteps=timesteps, encoding=encoding))))  # type: ignore[arg-type]


def lively(net: nn.Module) -> Any:
    """Give a new network batch statistics of its own, without which hardly a neuron of a deep one fires."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(2, 3, SIZE, SIZE))
    return net.eval()


def counts(console: Console) -> None:
    """Our counter beside SpikingJelly's."""
    table = Table(
        "network, T = 4", "counter", "G MACs", "G synaptic operations", title=f"One picture of {SIZE} x {SIZE}"
    )
    models = {
        "trevsnn tiny": ours(4, "shared"), "SEW-ResNet-18": sew(4),
        "Spikformer-Ti": lively(OverTime(spikformer.spikformer_ti(T=4), 4)),
    }  # fmt: skip
    x = torch.randn(1, 3, SIZE, SIZE)
    for name, model in models.items():
        operations = count_operations(model, x)
        macs = sum(op.macs for op in operations if not op.spiking)
        table.add_row(name, "trevsnn", f"{macs / 1e9:.4f}", f"{sum(op.synops for op in operations) / 1e9:.4f}")
        synops, mac_counter = SynOpCounter(), MACCounter(extra_rules=NOT_COUNTED)
        with torch.no_grad(), DispatchCounterMode([synops, mac_counter]):
            model(x)
        table.add_row("", "SpikingJelly", f"{mac_counter.get_total() / 1e9:.4f}", f"{synops.get_total() / 1e9:.4f}")
    console.print(table)


def against_time(console: Console) -> dict[str, list[float]]:
    """Multiply-accumulates of the dense computation against T, in thousands of millions, by network."""
    table = Table("T", *("shared", "grouped", "SEW-ResNet-18"), title="G multiply-accumulates of the dense computation")
    x = torch.randn(1, 3, SIZE, SIZE)
    macs: dict[str, list[float]] = {"trevsnn, shared": [], "trevsnn, grouped": [], "SEW-ResNet-18": []}
    for timesteps in TIMESTEPS:
        models = (ours(timesteps, "shared"), ours(timesteps, "grouped"), sew(timesteps))
        for row, model in zip(macs.values(), models, strict=True):
            row.append(sum(op.macs for op in count_operations(model, x)) / 1e9)
        table.add_row(str(timesteps), *(f"{row[-1]:.2f}" for row in macs.values()))
    console.print(table)
    return macs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    console = Console()
    counts(console)
    macs = against_time(console)
    if options.picture is not None:
        figure, (axes,) = chart(8.5, 4.5, list(macs))
        colours = (BLUE, GREEN, VERMILION)
        lines = [
            axes.plot(TIMESTEPS, row, marker="o", color=c)[0] for row, c in zip(macs.values(), colours, strict=True)
        ]
        axes.set(ylim=(0, None), xticks=TIMESTEPS)
        plain(axes, f"Cost of inference, {SIZE} x {SIZE}, total width fixed", "timesteps T", "G multiply-accumulates")
        name_lines(axes, lines, list(macs))
        write_picture(figure, options.picture)


if __name__ == "__main__":
    main()
