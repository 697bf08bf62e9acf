"""From a picture to a normalised tensor, augmented in training."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image, ImageOps
from timm.data import auto_augment
from timm.data.mixup import Mixup
from timm.data.transforms import MaybeToTensor
from timm.data.transforms_factory import transforms_imagenet_eval, transforms_imagenet_train
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2

from trevsnn.data.config import DataConfig
from trevsnn.data.geometry import rotation_and_shear
from trevsnn.data.part import About
from trevsnn.data.pictures.cover import Cover, crop_ratio, evaluated_size
from trevsnn.data.pictures.reduced import Reduced
from trevsnn.data.pictures.rows import as_frames, as_picture
from trevsnn.data.sampling import mix_seed, seeded


def _posterize(picture: Image.Image, bits: int, **_: Any) -> Image.Image:
    return picture if bits >= 8 else ImageOps.posterize(picture, max(1, bits))


# At its highest magnitude timm 1.0 asks for 0 bits, which Pillow 13 refuses.
auto_augment.NAME_TO_OP["PosterizeIncreasing"] = _posterize


def picture_transform(config: DataConfig, about: About, *, training: bool) -> Any:
    """The transform from a PIL picture to a normalised float32 tensor (C, H, W), augmented in training.

    With ``reduced`` it takes a :class:`trevsnn.data.pictures.file.PictureFile` as well.

    Resizing is bilinear, to cover H x W (:mod:`trevsnn.data.pictures.cover`) and crop the middle. In training,
    ``crop="pad"`` crops that picture at random out of a border of zeros,
    ``crop="resized"`` resizes a random crop (timm); then come flip, rotation, shear, timm's RandAugment or colour jitter,
    normalisation, and timm's random erasing with noise. In evaluation the centre crop.

    Args:
        config: data.* of the run.
        about: with the mean and standard deviation to normalise by.
        training: whether to augment.
    """
    steps = _training(config, about) if training else _evaluation(config, about)
    if config.reduced:
        steps[0] = Reduced(steps[0])
    return v2.Compose(steps)


def _evaluation(config: DataConfig, about: About) -> list[Any]:
    """The transforms of evaluation, the first a resizing."""
    size = config.size_HW
    _, crop, *tensor = transforms_imagenet_eval(size, mean=about.mean, std=about.std).transforms
    return [Cover(evaluated_size(size, config.crop_share)), crop, *tensor]


def _training(config: DataConfig, about: About) -> list[Any]:
    """The transforms of training, the first a resizing."""
    size, mean, std = config.size_HW, about.mean, about.std
    crop, colours, tensor = transforms_imagenet_train(
        size, (config.crop_scale, 1.0), crop_ratio(size), hflip=0.5 if config.flip else 0.0, color_jitter=config.color_jitter or None,  # type: ignore[arg-type]
        auto_augment=config.auto_augment, interpolation="bilinear", mean=mean, std=std,
        re_prob=config.erasing, re_mode="pixel", separate=True,
    )  # type: ignore[misc] # fmt: skip
    steps: list[Any] = list(crop.transforms)
    if config.crop == "pad":
        steps = [Cover(size), v2.CenterCrop(size)]
        if config.crop_padding > 0:
            steps.append(v2.RandomCrop(size, padding=config.crop_padding))
        if config.flip:
            steps.append(v2.RandomHorizontalFlip())
    steps += rotation_and_shear(config, v2.InterpolationMode.BILINEAR)
    return [*steps, colours, tensor]


def is_fixed(transform: Any) -> bool:
    """Whether a transform of pictures draws no random numbers, so that it makes the same tensor of a picture each time."""
    if isinstance(transform, (v2.Compose, transforms.Compose)):
        return all(map(is_fixed, transform.transforms))
    return isinstance(transform, (Cover, v2.CenterCrop, transforms.CenterCrop, MaybeToTensor, transforms.Normalize))


class BatchMixup:
    """timm's mixup and cutmix of a batch, with random numbers that depend on the seed and the call's key alone.

    cutmix takes the same box out of all frames of a recording; where pictures are seen row by row, a box of the picture.

    Args:
        config: with ``mixup`` or ``cutmix`` above 0.
        classes: K.
        label_smoothing: of the mixed targets.
        seed: of the run.
    """

    def __init__(self, config: DataConfig, classes: int, label_smoothing: float, seed: int) -> None:
        self.seed, self.rows = seed, config.rows
        self.mixup = Mixup(config.mixup, config.cutmix, label_smoothing=label_smoothing, num_classes=classes)

    def __call__(self, inputs: Tensor, labels: Tensor, *key: int) -> tuple[Tensor, Tensor]:
        """Mix inputs (B, ...), B even, and labels (B,).

        Args:
            inputs, labels: of a batch; they are not changed.
            key: training step, rank, and whatever else tells this batch from others.

        Returns:
            Mixed inputs (B, ...) and target probabilities (B, K).
        """
        with seeded(mix_seed(self.seed, *key)):
            mixed, target = self.mixup(self._as_maps(inputs).clone(), labels)
        mixed = as_frames(mixed) if self.rows else mixed.reshape(inputs.shape)
        return mixed, target.to(torch.get_default_dtype())

    def _as_maps(self, inputs: Tensor) -> Tensor:
        """Inputs as timm takes them, (B, C, H, W)."""
        return as_picture(inputs) if self.rows else inputs.flatten(1, -3)
