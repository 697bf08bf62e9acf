"""Batches of pictures decoded and augmented on the device (``data.on_device``)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import center_crop, resize, resized_crop

from trevsnn.data.config import DataConfig
from trevsnn.data.part import About
from trevsnn.data.pictures.cover import covering_size, evaluated_size, middle_of
from trevsnn.data.pictures.raw import CHANGES, Drawn, RawBatch, RawItem
from trevsnn.errors import UsageError


class OnDevice:
    """Makes of a raw batch what :func:`trevsnn.data.pictures.transforms.picture_transform` makes of its items.

    JPEGs are decoded by torchvision (on CUDA by nvJPEG, all of a batch together) and pictures resized one by one with
    antialiasing; flip, rotation and shear, colours, normalisation and erasing are of the whole batch at once, each item by its
    own random numbers. Those come with the batch: nothing depends on a global generator, nor changes one. On CUDA all this
    is done in a stream of its own, beside the training step.

    Args:
        config: data.* of the run.
        about: with the mean and standard deviation to normalise by.
        device: to compute on.
        again: from the key of a JPEG that the device cannot decode to the same item decoded by Pillow, or the one in its
            place.
        training: whether to augment.

    Raises:
        UsageError: kornia, of the extra ``device``, is needed and not installed; or torchvision cannot decode on the device.
    """

    def __init__(
        self,
        config: DataConfig,
        about: About,
        device: torch.device,
        again: Callable[[tuple[int, int]], RawItem],
        *,
        training: bool,
    ) -> None:
        self.config, self.device, self.again, self.training = config, device, again, training
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.turns, self.jitters = config.rotation > 0 or config.shear > 0, config.color_jitter > 0
        if training and (self.turns or self.jitters):
            self.transform, self.enhance = _kornia("kornia.geometry.transform"), _kornia("kornia.enhance")
        self.noise = torch.Generator(device)
        with torch.cuda.stream(self.stream):
            self.mean_C11, self.std_C11 = (
                torch.tensor(numbers, dtype=torch.float32, device=device)[:, None, None]
                for numbers in (about.mean, about.std)
            )
            self._try_decoder()

    def __call__(self, batch: RawBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The batch as (float32 pictures (B, C, H, W), labels (B,), both on the device; unreadable (B,) on the CPU).

        Raises:
            UnreadableError: a JPEG is damaged (``on_unreadable="fail"``).
        """
        if self.stream is None:
            return self._make(batch)
        # torchvision lets nvJPEG write, in a stream of nvJPEG's own, into memory that the current stream gave back and may
        # not have read yet. What this stream gave back is of the batch before, which is waited for; training is not.
        self.stream.synchronize()
        with torch.cuda.stream(self.stream):
            images, labels_B, unreadable_B = self._make(batch)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        for tensor in (images, labels_B):
            tensor.record_stream(current)
        return images, labels_B, unreadable_B

    @torch.no_grad()
    def _make(self, batch: RawBatch) -> tuple[Tensor, Tensor, Tensor]:
        pictures, items = self._decode(batch)
        drawn = [item.drawn or Drawn() for item in items]
        images = self._resize(pictures, drawn).to(torch.float32) / 255
        if self.training:
            images = self._augment(images, drawn)
        images = (images - self.mean_C11) / self.std_C11
        for place, numbers in enumerate(drawn):
            if numbers.erased is not None:
                top, left, height, width = numbers.erased
                box = images[place, :, top : top + height, left : left + width]
                box.copy_(torch.randn(box.shape, generator=self.noise.manual_seed(numbers.noise), device=self.device))
        labels_B, unreadable_B = torch.tensor([(item.label, item.unreadable) for item in items]).unbind(1)
        return images, self._place(labels_B), unreadable_B

    def _place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _decode(self, batch: RawBatch) -> tuple[list[Tensor], list[RawItem]]:
        """Pictures (C, H, W), uint8, on the device, and their items, some of them in the place of damaged ones."""
        files, items = batch.contents(batch.bytes_N), list(batch.items)
        pixels = batch.contents(self._place(batch.bytes_N)) if batch.has_pixels else files
        pictures = [content.movedim(-1, 0) for content in pixels]
        jpegs = [place for place, content in enumerate(files) if content.dim() == 1]
        try:
            decoded: Sequence[Tensor | None] = self._decode_jpegs([files[place] for place in jpegs])
        except RuntimeError:  # which does not say at which of them
            if self.stream is not None:
                torch.cuda.synchronize(self.device)  # what was begun may still be written
            decoded = [self._decode_alone(files[place]) for place in jpegs]
        for place, picture in zip(jpegs, decoded, strict=True):
            if picture is None:
                items[place] = self.again(items[place].key)
                pictures[place] = self._place(torch.tensor(items[place].content).movedim(-1, 0))
            else:
                pictures[place] = picture
        return pictures, items

    def _decode_jpegs(self, files: list[Tensor]) -> list[Tensor]:
        """JPEGs (N,) as RGB (3, H, W)."""
        if not files:
            return []
        where = self.device if self.device.type == "cuda" else torch.device("cpu")
        return [self._place(picture) for picture in decode_jpeg(files, ImageReadMode.RGB, where)]

    def _try_decoder(self) -> None:
        """Without this, a torchvision that cannot decode at all would leave every picture to Pillow, slowly."""
        Image.new("RGB", (8, 8)).save(file := BytesIO(), "jpeg")
        try:
            self._decode_jpegs([torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)])
        except RuntimeError as error:
            raise UsageError(
                f"torchvision cannot decode JPEGs on {self.device} ({str(error).splitlines()[0].rstrip('.')}): install a "
                "build of it that can, or leave out data.on_device."
            ) from error

    def _decode_alone(self, file: Tensor) -> Tensor | None:
        try:
            return self._decode_jpegs([file])[0]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return None

    def _resize(self, pictures: list[Tensor], drawn: Sequence[Drawn]) -> Tensor:
        """Pictures cropped and resized, as one batch (B, C, H, W), uint8."""
        config, size = self.config, list(self.config.size_HW)
        if self.training and config.crop == "resized":
            both = zip(pictures, drawn, strict=True)
            return torch.stack([resized_crop(p, *d.crop, size, antialias=True) for p, d in both])
        least_HW = config.size_HW if self.training else evaluated_size(config.size_HW, config.crop_share)
        if len({picture.shape for picture in pictures}) == 1:  # a set of one size: all at once
            return center_crop(_covering(torch.stack(pictures), least_HW), size)
        return torch.stack([center_crop(_covering(p, least_HW), size) for p in pictures])

    def _augment(self, images: Tensor, drawn: Sequence[Drawn]) -> Tensor:
        """Images (B, C, H, W) in 0..1, each shifted, mirrored, turned, sheared and changed in colour by its own numbers."""
        rows = [(*d.shift, d.flip, d.angle, d.shear, *d.colours) for d in drawn]
        numbers_BP = self._place(torch.tensor(rows, dtype=torch.float32))
        top_B, left_B, flip_B, angle_B, shear_B = numbers_BP[:, :5].unbind(1)
        if self.config.crop == "pad" and self.config.crop_padding > 0:
            images = _shifted(images, self.config.crop_padding, top_B.long(), left_B.long())
        if self.config.flip:
            images = torch.where(flip_B[:, None, None, None] > 0, images.flip(-1), images)
        if self.turns:
            images = self._turn(images, angle_B, shear_B)
        return self._recolour(images, numbers_BP[:, 5:]) if self.jitters else images

    def _turn(self, images: Tensor, angle_B: Tensor, shear_B: Tensor) -> Tensor:
        """Images turned, counter-clockwise, and then sheared along x about their middle; both angles are in degrees."""
        (height, width), matrices = self.config.size_HW, self.transform.get_affine_matrix2d
        zeros, still_B2 = torch.zeros_like(angle_B), images.new_zeros(len(images), 2)
        middle_B2 = images.new_tensor([(width - 1) / 2, (height - 1) / 2]).expand(len(images), 2)
        turn_B33 = matrices(still_B2, middle_B2, still_B2 + 1, -angle_B)
        shear_B33 = matrices(still_B2, middle_B2, still_B2 + 1, zeros, shear_B.deg2rad(), zeros)
        return self.transform.warp_affine(images, (shear_B33 @ turn_B33)[:, :2], (height, width))

    def _recolour(self, images: Tensor, factors_BP: Tensor) -> Tensor:
        changes = (
            self.enhance.adjust_brightness_accumulative,
            self.enhance.adjust_contrast_with_mean_subtraction,
            self.enhance.adjust_saturation_with_gray_subtraction,
        )
        for number, factor_B in enumerate(factors_BP.unbind(1)):
            images = changes[number % CHANGES](images, factor_B)
        return images


class DeviceLoader:
    """A loader whose raw batches come out as (inputs, labels, unreadable), inputs and labels on the device.

    Args:
        loader: of :class:`trevsnn.data.pictures.raw.RawBatch`.
        dataset: the items; kept for those who ask the loader for it.
        place: makes inputs of a raw batch.
    """

    def __init__(self, loader: Any, dataset: Any, place: OnDevice) -> None:
        self.loader, self.dataset, self.place = loader, dataset, place

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return map(self.place, self.loader)


def _covering(pictures: Tensor, least_HW: tuple[int, int]) -> Tensor:
    """Pictures (..., h, w) of one size, resized with antialiasing to cover H x W."""
    left, top, width, height = middle_of((pictures.shape[-1], pictures.shape[-2]), least_HW)
    columns, rows = covering_size((width, height), least_HW)
    return resize(pictures[..., top : top + height, left : left + width], [rows, columns], antialias=True)


def _shifted(images: Tensor, padding: int, top_B: Tensor, left_B: Tensor) -> Tensor:
    """From each image (C, H, W) with ``padding`` zeros around it the H x W pixels from a row and column on."""
    height, width = images.shape[-2:]
    rows_BH1 = (top_B[:, None] + torch.arange(height, device=images.device))[:, :, None]
    columns_B1W = (left_B[:, None] + torch.arange(width, device=images.device))[:, None]
    items_B11 = torch.arange(len(images), device=images.device)[:, None, None]
    return pad(images, [padding] * 4)[items_B11, :, rows_BH1, columns_B1W].movedim(-1, 1)


def _kornia(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError("data.on_device augments by kornia: pip install 'trevsnn[device]'.") from error
