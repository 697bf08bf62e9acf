"""Crops and resizing that decode a JPEG no finer than they need it (``data.reduced``)."""

from __future__ import annotations

import math
from typing import Any

import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor

from trevsnn.data.pictures.cover import covering_size, middle_of
from trevsnn.data.pictures.file import REDUCTIONS, PictureFile


class Reduced:
    """The resizing that a transform begins with, taken from a file decoded at a reduced scale.

    The region is the one that ``resize`` takes of the whole picture, by the same random numbers. The file is decoded at the
    largest reduction (1/8, 1/4, 1/2) that leaves the region at least as large as what it is resized to, in both
    directions: where none does, or the file is no JPEG, the result is that of ``resize``, bit for bit.

    Args:
        resize: timm's random resized crop, or :class:`trevsnn.data.pictures.cover.Cover`, both bilinear.
    """

    def __init__(self, resize: Any) -> None:
        self.resize = resize

    def __call__(self, picture: PictureFile | Image.Image) -> Image.Image:
        """The RGB picture that ``resize`` makes of a file, or of a picture that is decoded already.

        Raises:
            UnreadableError: the file is truncated or damaged.
        """
        if isinstance(picture, Image.Image):
            return self.resize(picture)
        region, size = self.plan(picture)
        reduction = largest_reduction(region, size) if picture.is_jpeg else 1
        margin_x, margin_y = picture.margin(reduction)
        left, top = (region[0] + margin_x) / reduction, (region[1] + margin_y) / reduction
        width, height = region[2] / reduction, region[3] / reduction
        right, bottom = left + width, top + height
        x, y = math.floor(left), math.floor(top)
        # As without a reduction, no pixel outside the region is looked at, but for those that it holds a part of.
        around = picture.decode(reduction).crop((x, y, math.ceil(right), math.ceil(bottom)))
        return around.resize(size, Image.Resampling.BILINEAR, (left - x, top - y, right - x, bottom - y))

    def plan(self, file: PictureFile) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
        """The region (left, top, width, height) of the whole picture, and the size (width, height) it is resized to."""
        if isinstance(self.resize, RandomResizedCropAndInterpolation):
            top, left, height, width = self.resize.get_params(shaped(file.size), self.resize.scale, self.resize.ratio)
            rows, columns = self.resize.size
            return (left, top, width, height), (columns, rows)
        middle = middle_of(file.size, self.resize.least_HW)
        return middle, covering_size(middle[2:], self.resize.least_HW)


def shaped(size: tuple[int, int]) -> Tensor:
    """A picture of a width and a height, without pixels, for those who look at its size alone."""
    return torch.empty(1, size[1], size[0], device="meta")


def largest_reduction(region: tuple[int, int, int, int], size: tuple[int, int]) -> int:
    """The largest of ``REDUCTIONS``, or 1, that leaves a region (left, top, width, height) at least ``size`` large."""
    fits = (r for r in REDUCTIONS if region[2] >= r * size[0] and region[3] >= r * size[1])
    return next(fits, 1)
