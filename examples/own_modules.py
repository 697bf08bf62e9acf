"""The recurrence for modules of one's own, without spikes: a transformer and a residual network whose states are floats.

    python examples/own_modules.py

Each level adds what its module computes to its own state, timestep after timestep; it sees the level below, and the one
above at the timestep before. ``exact`` keeps the states that modules see, and runs each module again in the backward pass:
what is inside of a module, attention maps and all, is never kept for more than one level and timestep.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trevsnn.measure.memory import footprint
from trevsnn.reversible import Backprop, run

TIMESTEPS, LEVELS, WIDTH = 6, 3, 32


class TransformerBlock(nn.Module):
    """Attention and a feed-forward layer over tokens (B, tokens, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(
            WIDTH, nhead=4, dim_feedforward=4 * WIDTH, dropout=0.1, batch_first=True
        )

    def forward(self, below: Tensor, above: Tensor | None) -> Tensor:
        """Above is None at the top level, and where there is no earlier state."""
        return self.block(below if above is None else below + above)


class ResidualBlock(nn.Module):
    """Two convolutions with batch statistics over maps (B, WIDTH, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.GELU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH),
        )  # fmt: skip

    def forward(self, below: Tensor, above: Tensor | None) -> Tensor:
        """Above is None at the top level, and where there is no earlier state."""
        return self.body(below if above is None else below + above)


class Network(nn.Module):
    """LEVELS modules, each used at all timesteps, with an alpha that is learned for each level."""

    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block() for _ in range(LEVELS))
        self.alphas = nn.Parameter(torch.full((LEVELS,), 0.9))
        self.backprop: Backprop = "exact"

    def forward(self, x: Tensor) -> Tensor:
        """The top level's last state; x is the input of all timesteps."""
        states, _ = run(
            [list(self.blocks)] * TIMESTEPS, [list(self.alphas)] * TIMESTEPS, [x] * TIMESTEPS, backprop=self.backprop
        )
        return states[-1]


def main() -> None:
    """Compare gradients and memory of both modes."""
    for block, shape in ((TransformerBlock, (8, 64, WIDTH)), (ResidualBlock, (8, WIDTH, 16, 16))):
        torch.manual_seed(0)
        net, x, gradients, megabytes = Network(block), torch.randn(shape), {}, {}
        for net.backprop in ("autograd", "exact"):
            net.zero_grad()
            torch.manual_seed(1)  # of dropout
            counted = footprint(net, [x], lambda: net(x).square().mean())  # noqa: B023 - called at once
            megabytes[net.backprop] = sum(counted.peak.values()) / 1e6
            gradients[net.backprop] = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        difference = (gradients["exact"] - gradients["autograd"]).norm() / gradients["autograd"].norm()
        print(
            f"{block.__name__}: {megabytes['exact']:.1f} MB in exact, {megabytes['autograd']:.1f} in autograd; gradients "
            f"differ by {difference:.0e} relative"
        )


if __name__ == "__main__":
    main()
