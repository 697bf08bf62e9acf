"""Convolutions of spikes that work only where spikes are: the weights of active inputs are added up, on a CPU.

Compiled by Numba, of the optional extra ``deploy``.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from trevsnn.deploy.extras import require
from trevsnn.deploy.folded import FoldedTRevSNN, TakesPotential
from trevsnn.measure.operations import count_operations

#: Firing rate above which the dense convolution is used. On the processors tried, the two take equally long at
#: 30 to 50 %, by layer (docs/results-inference.md).
CROSSOVER = 0.3


def spike_driven(
    folded: FoldedTRevSNN, x: Tensor, crossover: float = CROSSOVER
) -> tuple[FoldedTRevSNN, dict[str, float]]:
    """Replace the convolutions of spikes by spike-driven ones where they fire rarely.

    Candidates are PW2 and the links between levels; DW1, a few additions for each output, stays dense, and so do PW1
    and DW2, whose inputs are numbers.

    Args:
        folded: on the CPU.
        x: inputs to measure firing rates on.
        crossover: firing rate from which on a convolution stays dense.

    Returns:
        The network with the replaced convolutions, and the firing rate of each candidate by name.

    Raises:
        UsageError: Numba is not installed.
    """
    rates = {op.name: op.rate for op in count_operations(folded, x) if op.spiking}
    engine = copy.deepcopy(folded)
    candidates: dict[str, float] = {}
    for name, module in folded.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1 and name in rates:
            candidates[name] = rates[name]
            if rates[name] < crossover:
                engine.set_submodule(name, SpikeDrivenConv(module))
    return engine, candidates


class SpikeDrivenConv(TakesPotential):
    """``conv(s(v))`` for float32 or float64 maps, equal to the dense convolution but for the order of sums.

    Args:
        conv: without groups or dilation.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.kernel = _compiled()
        self.stride, self.padding = conv.stride, conv.padding
        self.weight = nn.Buffer(conv.weight.detach().permute(2, 3, 1, 0).contiguous())  # rows of C_out, by input
        bias = torch.zeros(conv.out_channels, dtype=conv.weight.dtype) if conv.bias is None else conv.bias.detach()
        self.bias = nn.Buffer(bias.clone())

    def forward(self, potential: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W'), channels-last."""
        maps_BHWC = potential.permute(0, 2, 3, 1).contiguous()
        batch, height, width, _ = maps_BHWC.shape
        rows, columns = self.weight.shape[:2]
        size = [
            (n + 2 * int(p) - k) // s + 1
            for n, p, k, s in zip((height, width), self.padding, (rows, columns), self.stride, strict=True)
        ]
        out_BHWC = torch.empty(batch, *size, len(self.bias), dtype=potential.dtype)
        self.kernel(
            maps_BHWC.detach().numpy(), self.weight.numpy(), self.bias.numpy(), self.stride[0], self.stride[1],
            int(self.padding[0]), int(self.padding[1]), out_BHWC.numpy(),
        )  # fmt: skip
        return out_BHWC.permute(0, 3, 1, 2)


def _compiled() -> Any:
    """The kernel, which runs in as many threads as PyTorch now has."""
    numba = require("numba")
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(threads)  # both may use one OpenMP, whose number Numba's start sets to all processors
    return require("trevsnn.deploy.kernel").accumulate
