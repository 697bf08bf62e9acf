"""Frames of an event camera one at a time, with logits after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trevsnn.reversible import Alpha, Sees, unroll


class Stream:
    """A clip of T frames that arrive one after the other; made by ``model.stream(batch)``.

    It keeps the states of the last timestep, with ``readout="mean"`` the sum of the logits, and nothing else, so that neither
    its size nor the cost of a frame grows with the frames it has seen. After the t-th frame it gives the logits
    ``forward_time`` gives for timestep t, or, with ``readout="mean"``, their mean up to t; and after the last those of the
    whole clip at once, bit for bit.

    Args:
        transforms: of all timesteps, as :func:`trevsnn.reversible.unroll` takes them.
        alphas: likewise.
        sees: likewise.
        head: from the top level's state to logits.
        shape: (B, channels) of a frame.
        mean: give the mean of the logits up to a frame.
    """

    def __init__(
        self, transforms: Sequence[Sequence[Callable[..., Tensor]]],
        alphas: Sequence[Sequence[Alpha] | None], sees: Sequence[Sees], head: Callable[[Tensor], Tensor], shape: tuple[int, int],
        *, mean: bool,
    ) -> None:  # fmt: skip
        self.transforms, self.alphas, self.sees, self.head, self.shape = transforms, alphas, sees, head, shape
        self.mean, self.total = mean, None
        self.seen = 0
        self.size: torch.Size | None = None
        self.states: list[Tensor] | None = None

    def __len__(self) -> int:
        """Frames that are still to come."""
        return len(self.transforms) - self.seen

    @property
    def state_bytes(self) -> int:
        """Bytes of the states it keeps."""
        return sum(state.untyped_storage().nbytes() for state in self.states or [])

    @torch.no_grad()
    def step(self, frame: Tensor) -> Tensor:
        """Take the next frame (B, channels, H, W), float, and return logits (B, K).

        Raises:
            ValueError: the frame has another shape than the first or is not floating point, or holds NaN, or all T
                were there.
        """
        if len(self) == 0:
            raise ValueError(f"the clip has had its {self.seen} frames: begin another with model.stream(batch).")
        if frame.dim() != 4 or tuple(frame.shape[:2]) != self.shape:
            raise ValueError(f"the frame has shape {tuple(frame.shape)}; this stream takes {(*self.shape, 'H', 'W')}.")
        if not frame.is_floating_point():
            raise ValueError(f"frame {self.seen} has dtype {frame.dtype}; convert it to floating point first.")
        if self.size is not None and frame.shape != self.size:
            raise ValueError(f"frame {self.seen} has shape {tuple(frame.shape)}, the first had {tuple(self.size)}.")
        if frame.isnan().any():
            raise ValueError(f"frame {self.seen} holds NaN.")
        self.size = frame.shape
        here = slice(self.seen, self.seen + 1)
        (self.states,) = unroll(self.transforms[here], self.alphas[here], [frame], self.states, self.sees)
        self.seen += 1
        logits = self.head(self.states[-1])
        if not self.mean:
            return logits
        self.total = logits if self.total is None else self.total + logits
        return self.total / self.seen
