"""From event counts to float32 frames, augmented in training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from trevsnn.data.config import DataConfig
from trevsnn.data.events.frames import Counts
from trevsnn.data.geometry import rotation_and_shear


def frames_transform(config: DataConfig, *, training: bool) -> v2.Compose:
    """The transform from counts (T, 2, H, W) to float32 frames, augmented in training.

    Every recording is divided by its mean count over the pixels of frames that have any event, so that the inputs of
    slow and fast scenes, and of any T, are of one magnitude. Augmentations are the same for all frames of a recording:
    EventDrop with probability ``event_drop``, shift by up to ``crop_padding`` pixels, flip, rotation, shear, and cut-out
    (``erasing``): those of NDA (Li et al., ECCV 2022), which takes one of shifts, rotation, shear and cut-out for each item.
    """
    transforms: list[nn.Module] = [_Scale()]
    if training:
        if config.event_drop > 0:
            transforms.append(EventDrop(config.event_drop))
        if config.crop_padding > 0:
            transforms.append(v2.RandomCrop(config.size_HW, padding=config.crop_padding))
        if config.flip:
            transforms.append(v2.RandomHorizontalFlip())
        # An event has one place: a pixel takes the count of the nearest one, and no count is spread over several.
        transforms += rotation_and_shear(config, v2.InterpolationMode.NEAREST)
        if config.erasing > 0:
            transforms.append(v2.RandomErasing(config.erasing, scale=(0.02, 0.15)))
    return v2.Compose(transforms)


class _Scale(nn.Module):
    def forward(self, counts_TCHW: Counts) -> Tensor:
        frames_TCHW = torch.from_numpy(counts_TCHW.astype(np.float32))
        positive = frames_TCHW[frames_TCHW > 0]
        return frames_TCHW / positive.mean() if len(positive) else frames_TCHW


class EventDrop(nn.Module):
    """EventDrop (Gu et al., IJCAI 2021): drop a recording's events at random, within a span of time, or in a rectangle.

    One of the three, of equal probability; it takes up to half of the pixels, of the timesteps, or of the area.

    Args:
        probability: that anything is dropped.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, frames_TCHW: Tensor) -> Tensor:
        """Frames (T, 2, H, W) with the dropped events set to 0."""
        if float(torch.rand(())) >= self.probability:
            return frames_TCHW
        timesteps, _, height, width = frames_TCHW.shape
        kept = torch.ones_like(frames_TCHW)
        kind, share = int(torch.randint(3, ())), float(torch.rand(())) / 2
        if kind == 0:
            kept = (torch.rand_like(frames_TCHW) >= share).to(frames_TCHW.dtype)
        elif kind == 1:
            kept[_span(timesteps, share)] = 0
        else:
            rows, columns = _span(height, share**0.5), _span(width, share**0.5)
            kept[:, :, rows, columns] = 0
        return frames_TCHW * kept


def _span(length: int, share: float) -> slice:
    """A random range of indices that is about a share of a length long."""
    extent = round(share * length)
    start = int(torch.randint(length - extent + 1, ()))
    return slice(start, start + extent)
