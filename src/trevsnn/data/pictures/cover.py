"""How a picture of any aspect ratio is resized before its middle is cropped."""

from __future__ import annotations

from PIL import Image

#: Of the width to the height of a random crop, relative to that of the network's input, as timm and torchvision have it.
RATIO = (3 / 4, 4 / 3)
#: How many times as long as the input a cover may be. What is longer than that has few pixels, but a cover of gigabytes.
LONGEST_COVER = 64


def covering_size(size: tuple[int, int], least_HW: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a picture resized to cover H x W: one side is met, the other is as long or longer.

    It keeps its aspect ratio, but for the longer side's rounding down, as torchvision rounds it. With H = W the shorter
    side is resized to it.

    Args:
        size: width and height of the picture.
        least_HW: H, W.
    """
    (width, height), (rows, columns) = size, least_HW
    if width * rows <= height * columns:
        return columns, height * columns // width
    return width * rows // height, rows


def middle_of(size: tuple[int, int], least_HW: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of what of a picture is resized to cover H x W: all, but of a very long one its middle.

    The rest of that would be cut off after it was resized.

    Args:
        size: width and height of the picture.
        least_HW: H, W.
    """
    (width, height), (rows, columns) = size, least_HW
    wide = _cut(width, LONGEST_COVER * height * columns // rows)
    high = _cut(height, LONGEST_COVER * width * rows // columns)
    return (width - wide) // 2, (height - high) // 2, wide, high


def _cut(pixels: int, most: int) -> int:
    """At most so many pixels and one, whose middle is that of all."""
    return pixels if pixels <= most else max(1, most) + (pixels - max(1, most)) % 2


class Cover:
    """Resizes PIL pictures so that they, or the middle of a very long one, cover H x W, bilinear with antialiasing.

    Args:
        least_HW: H, W.
    """

    def __init__(self, least_HW: tuple[int, int]) -> None:
        self.least_HW = least_HW

    def __call__(self, picture: Image.Image) -> Image.Image:
        """A picture at least H x W large, and of just that size in one direction."""
        left, top, width, height = middle_of(picture.size, self.least_HW)
        box, size = (left, top, left + width, top + height), covering_size((width, height), self.least_HW)
        return picture.resize(size, Image.Resampling.BILINEAR, box)


def evaluated_size(size_HW: tuple[int, int], crop_share: float) -> tuple[int, int]:
    """H and W that a picture covers before the centre crop of evaluation, which is ``crop_share`` of them."""
    return int(size_HW[0] / crop_share), int(size_HW[1] / crop_share)


def crop_ratio(size_HW: tuple[int, int]) -> tuple[float, float]:
    """Least and greatest width to height of a random crop that is resized to H x W."""
    aspect = size_HW[1] / size_HW[0]
    return RATIO[0] * aspect, RATIO[1] * aspect
