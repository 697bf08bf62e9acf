"""What loading processes hand over where pictures are decoded on the device (``data.on_device``): files and random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms import ColorJitter, v2

from trevsnn.data.config import DataConfig
from trevsnn.data.geometry import rotation_and_shear
from trevsnn.data.pictures.cover import crop_ratio
from trevsnn.data.pictures.file import PictureFile
from trevsnn.data.pictures.reduced import shaped

Box = tuple[int, int, int, int]  # top, left, height, width
CHANGES = 3  # of colour: brightness, contrast and saturation, in this order


class Drawn(NamedTuple):
    """The random numbers of one item's augmentation, those by which torchvision and timm change decoded pictures.

    Attributes:
        crop: of a training picture with ``crop="resized"``, the region of the whole picture.
        shift: with ``crop="pad"``, the first row and column of the crop out of the padded picture.
        flip: whether it is mirrored.
        angle, shear: degrees.
        colours: the factors of the ``CHANGES`` one after the other, in each of as many rounds: 1 but for one of them.
        erased: the rectangle that noise replaces.
        noise: the seed of that noise.
    """

    crop: Box = (0, 0, 0, 0)
    shift: tuple[int, int] = (0, 0)
    flip: bool = False
    angle: float = 0.0
    shear: float = 0.0
    colours: tuple[float, ...] = (1.0,) * CHANGES**2
    erased: Box | None = None
    noise: int = 0


class Draw:
    """Draws the random numbers of training items, from the generators of Python and torch.

    Crop, flip, rotation, shear and colours are those that :func:`trevsnn.data.pictures.transforms.picture_transform` draws
    in the same state of the generators; erasing has its distribution.

    Args:
        config: data.* of the run.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config, size = config, config.size_HW
        self.scale, self.ratio = (config.crop_scale, 1.0), crop_ratio(size)
        self.shift = v2.RandomCrop(size, padding=config.crop_padding)
        self.forms = rotation_and_shear(config, v2.InterpolationMode.BILINEAR)
        self.factors = [1 - config.color_jitter, 1 + config.color_jitter]
        self.erase = v2.RandomErasing(scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3))  # timm's ranges
        self.shown = [torch.empty(1, *size, device="meta")]  # whose size alone is asked for

    def __call__(self, size: tuple[int, int]) -> Drawn:
        """The numbers of an item, by the width and height of its whole picture."""
        config, crop, shift = self.config, (0, 0, 0, 0), (0, 0)
        if config.crop == "resized":
            crop = RandomResizedCropAndInterpolation.get_params(shaped(size), self.scale, self.ratio)
        elif config.crop_padding > 0:
            moved = self.shift.make_params(self.shown)
            shift = moved["top"], moved["left"]
        flip = config.flip and bool(torch.rand(1) < 0.5)
        forms = [form.make_params(self.shown) for form in self.forms]
        angle = sum(form["angle"] for form in forms)  # shearing has one of 0
        shear = sum(form["shear"][0] for form in forms if "shear" in form)
        colours = self._colours()
        erased, noise = None, 0
        if config.erasing > 0 and bool(torch.rand(1) < config.erasing):
            found = self.erase.make_params(self.shown)
            if found["v"] is not None:  # a rectangle that fits
                erased = found["i"], found["j"], found["h"], found["w"]
            noise = int(torch.randint(2**63 - 1, ()))
        return Drawn(crop, shift, flip, angle, shear, colours, erased, noise)

    def _colours(self) -> tuple[float, ...]:
        factors = np.ones((CHANGES, CHANGES))
        if self.config.color_jitter > 0:
            order, *found, _ = ColorJitter.get_params(self.factors, self.factors, self.factors, None)
            for place, change in enumerate(int(number) for number in order if number < CHANGES):
                factors[place, change] = found[change]
        return tuple(factors.flatten().tolist())


class RawItem(NamedTuple):
    """One item as a loading process hands it over.

    Attributes:
        content: uint8, a JPEG file's bytes (N,), or pixels (H, W, C).
        drawn: its random numbers; None in evaluation.
        label, unreadable: as of :class:`trevsnn.data.loading.TensorDataset`.
        key: (epoch, index).
    """

    content: NDArray[np.uint8]
    drawn: Drawn | None
    label: int
    unreadable: int
    key: tuple[int, int]


def content_of(picture: PictureFile | Image.Image, *, decode: bool) -> NDArray[np.uint8]:
    """A file's bytes where it is a JPEG that devices can decode, and pixels are not asked for; else pixels, by Pillow.

    Raises:
        UnreadableError: the file is truncated or damaged.
    """
    if isinstance(picture, PictureFile):
        if picture.is_plain_jpeg and not decode:
            return np.frombuffer(picture.content, np.uint8)
        picture = picture.decode()
    pixels = np.asarray(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


@dataclass
class RawBatch:
    """Items in one piece of memory, which crosses between processes, and to the device, at once.

    Attributes:
        bytes_N: uint8, the items' contents one after the other.
        shapes: of the contents.
        items: the items, without their contents.
    """

    bytes_N: Tensor
    shapes: list[tuple[int, ...]]
    items: list[RawItem]

    @classmethod
    def of(cls, items: Sequence[RawItem]) -> RawBatch:
        """The batch of some items: a ``collate_fn``."""
        bytes_N = torch.from_numpy(np.concatenate([item.content.reshape(-1) for item in items]))
        nothing = np.empty(0, np.uint8)
        return cls(bytes_N, [item.content.shape for item in items], [i._replace(content=nothing) for i in items])

    def pin_memory(self) -> RawBatch:
        """Pixels go to a CUDA device out of page-locked memory; a JPEG's bytes are read by the CPU."""
        if self.has_pixels:
            self.bytes_N = self.bytes_N.pin_memory()
        return self

    @property
    def has_pixels(self) -> bool:
        """Whether some of the items are pixels."""
        return any(len(shape) == 3 for shape in self.shapes)

    def contents(self, bytes_N: Tensor) -> list[Tensor]:
        """The items' contents out of ``bytes_N``, on whatever device it is: views."""
        parts: Any = bytes_N.split([int(np.prod(shape)) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
