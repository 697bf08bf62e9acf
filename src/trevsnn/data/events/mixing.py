"""EventMix: two recordings of a batch in one, each with the events of a region of space and time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from trevsnn.data.sampling import mix_seed

COMPONENTS = (2, 4)  # Gaussians of a mask, at least and at most
# Their standard deviations as shares of the axis; the lowest tenth of the draws is raised to the first.
SPREAD = (0.05, 0.5)


class EventMix:
    """EventMix (Shen et al., "EventMix: An efficient data augmentation strategy for event-based learning", Information
    Sciences 2023): each recording takes over a region of another one of its batch.

    ``mixed = (1 - M) x1 + M x2`` with a mask M in (t, y, x): where a random mixture of Gaussians is densest, in a share
    1 - r of the cells, r ~ Beta(alpha, alpha). The label is mixed by events: with a the share of x1's events that is kept
    and b the share of x2's that is taken, ``target = (a y1 + b y2) / (a + b)``. As each is a share of its own recording's,
    recordings of many and of few events count alike. The partner of item i of B is item B - 1 - i, as in timm's mixup. An
    item whose mixture would hold no event stays as it is.

    Args:
        alpha: above 0; 1 for any share with equal probability.
        classes: K.
        label_smoothing: of the targets.
        seed: of the run.
    """

    def __init__(self, alpha: float, classes: int, label_smoothing: float, seed: int) -> None:
        self.alpha, self.classes, self.label_smoothing, self.seed = alpha, classes, label_smoothing, seed

    def __call__(self, inputs: Tensor, labels: Tensor, *key: int) -> tuple[Tensor, Tensor]:
        """Mix frames (B, T, C, H, W), no value of them below 0, and labels (B,).

        Args:
            inputs, labels: of a batch; they are not changed.
            key: training step, rank, and whatever else tells this batch from others.

        Returns:
            Mixed frames (B, T, C, H, W) and target probabilities (B, K).
        """
        dice = np.random.default_rng(mix_seed(self.seed, *key))
        batch, timesteps, _, height, width = inputs.shape
        replaced_B = 1 - dice.beta(self.alpha, self.alpha, batch)
        mask = random_masks(replaced_B, (timesteps, height, width), dice, inputs.device)[:, :, None]
        others = inputs.flip(0)
        kept_B, taken_B = _share(inputs, ~mask), _share(others, mask)
        blank_B = kept_B + taken_B == 0
        own_B = torch.where(blank_B, 1, kept_B / (kept_B + taken_B))[:, None]
        mixed = torch.where(mask & ~blank_B.view(-1, 1, 1, 1, 1), others, inputs)
        smoothing = self.label_smoothing
        targets_BK = nn.functional.one_hot(labels, self.classes) * (1 - smoothing) + smoothing / self.classes
        return mixed, (own_B * targets_BK + (1 - own_B) * targets_BK.flip(0)).to(torch.get_default_dtype())


def random_masks(
    share_B: np.ndarray, size: tuple[int, int, int], dice: np.random.Generator, device: torch.device
) -> Tensor:
    """Where random mixtures of two to four Gaussians are densest.

    Weights, means and standard deviations are uniform, the deviations between 0.05 and 0.5 of the axis' length (below
    0.05 raised to it), independent on each axis, as in the authors' code.

    Args:
        share_B: of the cells that are in the mask of each item, in 0..1.
        size: (T, H, W).
        dice: for all random numbers.
        device: of the masks.

    Returns:
        (B, T, H, W), bool, with ``round(share * T H W)`` cells true, but for cells of exactly the same density.
    """
    batch, most = len(share_B), COMPONENTS[1]
    count_B = dice.integers(COMPONENTS[0], most + 1, batch)
    log_weight_BN = np.where(np.arange(most) < count_B[:, None], np.log(dice.uniform(1e-9, 1, (batch, most))), -np.inf)
    mean_BN3 = dice.uniform(0, size, (batch, most, 3)) - 0.5  # pixel i reaches from i - 1/2 to i + 1/2
    spread_BN3 = np.maximum(dice.uniform(0, SPREAD[1], (batch, most, 3)), SPREAD[0]) * size
    exponents = [torch.from_numpy(log_weight_BN).float().to(device)]
    for axis, length in enumerate(size):
        squares = ((np.arange(length) - mean_BN3[..., axis, None]) / spread_BN3[..., axis, None]) ** 2
        exponents.append(torch.from_numpy(-squares / 2).float().to(device))
    weight_BN, t_BNT, y_BNH, x_BNW = exponents
    log_density = torch.full((batch, *size), -torch.inf, device=device)
    for n in range(most):  # as logarithms, which do not underflow far from every mean
        part = (
            (weight_BN[:, n, None] + t_BNT[:, n])[:, :, None, None]
            + y_BNH[:, n, None, :, None]
            + x_BNW[:, n, None, None]
        )
        log_density = torch.logaddexp(log_density, part)
    rank_B = torch.from_numpy(np.round((1 - share_B) * np.prod(size)).astype(np.int64)).to(device)
    ordered = torch.cat([log_density.flatten(1).sort(1).values, torch.full((batch, 1), torch.inf, device=device)], 1)
    return log_density >= ordered.gather(1, rank_B[:, None])[:, :, None, None]


def _share(frames: Tensor, mask: Tensor) -> Tensor:
    """The share (B,) of the events of frames (B, T, C, H, W) that are in a mask; 0 of none."""
    total_B = frames.flatten(1).sum(1)
    return torch.where(total_B > 0, (frames * mask).flatten(1).sum(1) / total_B, 0.0)
