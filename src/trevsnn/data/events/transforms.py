"""From counted events to float32 frames, augmented in training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms import v2

from trevsnn.data.config import DataConfig


def frames_transform(config: DataConfig, *, training: bool) -> v2.Compose:
    """The transform from counts (T, 2, S, S) to float32 frames, augmented in training.

    Every recording is divided by its own mean count over the pixels that saw any event, so that slow and fast scenes,
    and any T, give inputs of one size. Augmentations are the same for all frames of a recording: flip, shift by up to
    ``crop_padding`` pixels, cut-out (``erasing``), and EventDrop (Gu et al., IJCAI 2021) with probability ``event_drop``.
    """
    steps: list[nn.Module] = [_Scale()]
    if training:
        if config.event_drop > 0:
            steps.append(EventDrop(config.event_drop))
        if config.crop_padding > 0:
            steps.append(v2.RandomCrop(config.image_size, padding=config.crop_padding))
        if config.flip:
            steps.append(v2.RandomHorizontalFlip())
        if config.erasing > 0:
            steps.append(v2.RandomErasing(config.erasing, scale=(0.02, 0.15)))
    return v2.Compose(steps)


class _Scale(nn.Module):
    def forward(self, counts: NDArray[np.uint8]) -> Tensor:
        frames_TCHW = torch.from_numpy(counts.astype(np.float32))
        seen = frames_TCHW[frames_TCHW > 0]
        return frames_TCHW / seen.mean() if len(seen) else frames_TCHW


class EventDrop(nn.Module):
    """Drop events of a recording: at random, within a span of time, or within a rectangle, one of the three, each up to
    a half of what there is.

    Args:
        probability: that anything is dropped.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, frames_TCHW: Tensor) -> Tensor:
        if float(torch.rand(())) >= self.probability:
            return frames_TCHW
        timesteps, _, height, width = frames_TCHW.shape
        kept = torch.ones_like(frames_TCHW)
        kind, share = int(torch.randint(3, ())), float(torch.rand(())) / 2
        if kind == 0:
            kept = (torch.rand_like(frames_TCHW) >= share).to(frames_TCHW.dtype)
        elif kind == 1:
            time = _span(timesteps, share)
            kept[time] = 0
        else:
            rows, columns = _span(height, share**0.5), _span(width, share**0.5)
            kept[:, :, rows, columns] = 0
        return frames_TCHW * kept


def _span(length: int, share: float) -> slice:
    """A random stretch of about a share of a length, no longer than it."""
    extent = round(share * length)
    start = int(torch.randint(length - extent + 1, ()))
    return slice(start, start + extent)
