"""Random changes of form of training items, pictures and recordings alike."""

from __future__ import annotations

from typing import Any

from torchvision.transforms import InterpolationMode, v2

from trevsnn.data.config import DataConfig


def rotation_and_shear(config: DataConfig, interpolation: InterpolationMode) -> list[Any]:
    """Transforms that rotate by up to ``rotation`` degrees and shear along x by up to ``shear`` degrees, each if it is not 0.

    Both turn about the middle, and what comes from outside is 0. All frames (..., H, W) of an item are changed alike.
    """
    transforms: list[Any] = []
    if config.rotation > 0:
        transforms.append(v2.RandomRotation([-config.rotation, config.rotation], interpolation))
    if config.shear > 0:
        transforms.append(v2.RandomAffine([0, 0], shear=[-config.shear, config.shear], interpolation=interpolation))
    return transforms
