"""Pictures seen row by row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trevsnn.errors import UsageError


class Rows(nn.Module):
    """A picture as T frames of one row each, from top to bottom, as a line camera moved over it takes them.

    ``frame[t] = mean of the rows t S // T .. (t + 1) S // T - 1``, what the line integrates in the t-th of T exposures.
    With T = S each row is a frame, as in the sequential (row-wise) MNIST of Le et al. (arXiv 1504.00941); with T = 1 the
    only frame holds the means of the columns, in which no order of the rows is left.

    Args:
        timesteps: T.
        size: S, rows of a picture, its height.

    Raises:
        UsageError: T is larger than S.
    """

    def __init__(self, timesteps: int, size: int) -> None:
        super().__init__()
        if timesteps > size:
            raise UsageError(
                f"model.timesteps is {timesteps}, but with data.rows a picture of {size} rows makes {size} frames at "
                f"most: lower it to {size}, or raise data.image_size."
            )
        self.bounds = [t * size // timesteps for t in range(timesteps + 1)]

    def forward(self, picture_CHW: Tensor) -> Tensor:
        """A picture (C, S, W) as frames (T, C, 1, W)."""
        rows = zip(self.bounds, self.bounds[1:], strict=False)
        return torch.stack([picture_CHW[:, start:end].mean(1, keepdim=True) for start, end in rows])


def as_picture(frames_BTCHW: Tensor) -> Tensor:
    """The frames of :class:`Rows` (B, T, C, 1, W) one below the other, as pictures (B, C, T, W): a view."""
    return frames_BTCHW.squeeze(3).transpose(1, 2)


def as_frames(pictures_BCHW: Tensor) -> Tensor:
    """The inverse of :func:`as_picture`."""
    return pictures_BCHW.transpose(1, 2).unsqueeze(3)
