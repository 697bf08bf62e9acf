"""The training step that is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from trevsnn.checks import choice, positive
from trevsnn.errors import UsageError
from trevsnn.measure import MeasuredPrecision
from trevsnn.network.config import TRevSNNConfig
from trevsnn.network.losses import deep_supervision_loss
from trevsnn.network.model import TRevSNN
from trevsnn.sizes import Size, height_and_width, plain_size

#: Autocast dtype and the dtype of the weights.
PRECISIONS: dict[MeasuredPrecision, tuple[torch.dtype | None, torch.dtype]] = {
    "32-true": (None, torch.float32),
    "64-true": (None, torch.float64),
    "bf16-mixed": (torch.bfloat16, torch.float32),
    "16-mixed": (torch.float16, torch.float32),
}


@dataclasses.dataclass(frozen=True)
class TrainingStep:
    """A training step to measure, without the optimizer.

    Attributes:
        batch: pictures, or recordings.
        size: of them in pixels, the side of a square, or height and width.
        precision: "32-true", "64-true", or autocast with "bf16-mixed" or "16-mixed". The loss is not scaled in float16, which takes neither time nor memory.
        device: "cpu" or "cuda".

    Raises:
        ValueError: a number is not positive, or there is no such precision.
    """

    batch: int = 8
    size: Size = 224
    precision: MeasuredPrecision = "32-true"
    device: str = "cpu"

    def __post_init__(self) -> None:
        positive("batch", self.batch)
        object.__setattr__(self, "size", plain_size("size", self.size))
        choice("precision", self.precision, tuple(PRECISIONS))

    def inputs(self, config: TRevSNNConfig) -> tuple[Tensor, Tensor]:
        """Random inputs (B, C, H, W), or frames (B, T, C, H, W), in the weights' dtype, and classes (B,).

        Raises:
            UsageError: the network has no classes.
        """
        if config.num_classes == 0:
            raise UsageError("model.num_classes is 0, and a step's loss is of classes: set it to 1 or more.")
        frames = (config.timesteps,) if config.input == "event" else ()
        shape = (self.batch, *frames, config.in_chans or 0, *height_and_width(self.size))
        x = torch.randn(shape, device=self.device, dtype=PRECISIONS[self.precision][1])
        return x, torch.randint(config.num_classes, (self.batch,), device=self.device)

    def loss(self, model: TRevSNN, x: Tensor, target: Tensor) -> Tensor:
        """The forward pass to the loss () of deep supervision, in this precision."""
        with self.autocast():
            return deep_supervision_loss(model(x, all_heads=True), target)

    def autocast(self) -> torch.autocast:
        """The context of this precision."""
        low, _ = PRECISIONS[self.precision]
        return torch.autocast(self.device, dtype=low, enabled=low is not None)

    def build(self, config: TRevSNNConfig) -> TRevSNN:
        """A model with new weights, on the device and in training mode."""
        return TRevSNN(config).to(self.device, PRECISIONS[self.precision][1]).train()

    def require_device(self) -> None:
        """Check that the device is there.

        Raises:
            UsageError: it is not.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError(
                "there is no CUDA device on this machine: use --device cpu, or trevsnn measure memory --fake for figures "
                "of one."
            )


def check_keep_counts(config: TRevSNNConfig, modes: Sequence[str]) -> None:
    """Check that ``exact``, the one mode in which ``config.keep`` counts, is measured where it is given.

    Raises:
        UsageError: it is not.
    """
    if config.keep is not None and "exact" not in modes:
        raise UsageError("--keep is of the backward pass exact: add it to --modes.")
