"""What watches over a training: gradients that are not finite."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from trevsnn.errors import RunError


class StepGuard:
    """Skips training steps whose gradient is not finite; weights and buffers stay as they were before the step.

    The gradient is the one summed over all processes, so all of them skip the same steps.

    Args:
        model: whose buffers the forward pass changes.
        limit: raise after so many skipped steps one after the other.
        scaler: of the loss, whose scale a skipped step halves, once it has unscaled the step's gradient; None without
            one. Steps that halve a scale above 1 do not count for the limit: the scale may have been at fault.

    Attributes:
        skipped: steps skipped in this epoch; whoever counts epochs sets it to 0.
        in_a_row: steps skipped one after the other until now that count for the limit.
    """

    def __init__(self, model: nn.Module, limit: int, scaler: GradScaler | None = None) -> None:
        self.limit, self.scaler = limit, scaler
        self.skipped = self.in_a_row = 0
        self._buffers = list(model.buffers())
        self._before = [buffer.clone() for buffer in self._buffers]

    def begin_step(self) -> None:
        """Copy the buffers, before the forward pass changes them."""
        torch._foreach_copy_(self._before, self._buffers)

    def accept(self, norm: Tensor) -> bool:
        """Whether to take the step, given the norm () of its whole gradient. If not, the buffers are put back.

        Raises:
            RunError: ``limit`` steps one after the other could not be taken.
        """
        if bool(torch.isfinite(norm)):
            self.in_a_row = 0
            return True
        torch._foreach_copy_(self._buffers, self._before)
        self.skipped += 1
        if self._scale_was_above_1():
            return False
        self.in_a_row += 1
        if self.in_a_row >= self.limit:
            scaled = "" if self.scaler is None else ", with a loss scale of 1 or less"
            raise RunError(
                f"the gradient was not finite in {self.in_a_row} steps one after the other{scaled}: look for NaN in the "
                "data, lower optim.lr, or use precision 32-true."
            )
        return False

    def _scale_was_above_1(self) -> bool:
        """Halve the scale; whether it was above 1 until then. One that does not fall is not at fault either."""
        if self.scaler is None:
            return False
        before = self.scaler.get_scale()
        self.scaler.update()
        return before > 1 and self.scaler.get_scale() < before
