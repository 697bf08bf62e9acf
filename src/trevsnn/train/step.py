"""One training step: losses of its parts, gradients, clipping, the optimizer, averaging of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trevsnn.data.mixing import batch_mix
from trevsnn.network.losses import deep_supervision_loss, temporal_loss
from trevsnn.train.evaluate import place_inputs
from trevsnn.train.graph import GraphedPasses
from trevsnn.train.optim import build_scheduler, clip_gradients
from trevsnn.train.state import TrainingState


class Stepper:
    """Takes the training steps of one process.

    Args:
        state: of the training, with the optimizer.
        wrapped: the network as Fabric set it up.
        steps_per_epoch: of the run.
    """

    def __init__(self, state: TrainingState, wrapped: Any, steps_per_epoch: int) -> None:
        self.state, self.wrapped, self.config, self.fabric = state, wrapped, state.config, state.fabric
        self.scheduler = build_scheduler(state.optimizer, self.config, steps_per_epoch)
        self.dtype: torch.dtype = next(state.model.parameters()).dtype
        data, model = self.config.data, self.config.model
        self.mix = batch_mix(data, model.num_classes, self.config.label_smoothing, self.config.seed)
        self._captured: tuple[float, GraphedPasses] | None = (
            None  # with the slope of the leaky ReLUs it was captured with
        )

    def take(self, parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """One step on all ``accumulate`` parts (inputs, labels). It is skipped where the gradient is not finite.

        With "16-mixed" the backward pass is that of the scaled loss, and the gradient unscaled, once, before anything looks
        at it; the optimizer's step, or the guard, updates the scale.

        Returns:
            The norm () of the whole gradient before clipping.

        Raises:
            RunError: too many steps one after the other had to be skipped.
        """
        state = self.state
        self.scheduler.step_update(state.step)
        state.guard.begin_step()
        losses = []
        for place, (inputs, labels) in enumerate(parts):
            # Processes share their gradients once, after the last part.
            with self.fabric.no_backward_sync(self.wrapped, enabled=place < len(parts) - 1):
                losses.append(self._part(place_inputs(inputs, self.dtype), labels, place, len(parts)))
        if state.scaler is not None:  # not by Fabric, which does not do so for optimizers in one pass
            state.scaler.unscale_(state.optimizer.optimizer)  # type: ignore[attr-defined]
        norm = clip_gradients(state.model.parameters(), state.model.heads.parameters(), self.config.optim)
        if state.guard.accept(norm):
            state.optimizer.step()
            state.average()
            state.count(torch.stack(losses).sum(0))
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        return norm

    def _part(self, inputs: Tensor, target: Tensor, place: int, parts: int) -> Tensor:
        """Add the gradients of a part, and return its share of the loss and of the plain cross entropy (2,)."""
        smoothing, slope = self.config.label_smoothing, self.state.slope
        if self.mix is not None:
            inputs, target = self.mix(inputs, target, self.state.step, self.fabric.global_rank, place)
            smoothing = 0.0  # the mixed targets are smoothed already

        def passes(inputs: Tensor, target: Tensor) -> Tensor:
            loss, ce = self._losses(inputs, target, smoothing)
            self.fabric.backward(loss / parts)
            return torch.stack([loss.detach(), ce.to(loss.dtype)]) / parts

        if not self.config.cuda_graph:
            return passes(inputs, target)
        if self._captured is None or self._captured[0] != slope:
            self._captured = slope, GraphedPasses(passes, self.state.model)
        return self._captured[1](inputs, target)

    def _losses(self, inputs: Tensor, target: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        """The loss, and the plain cross entropy of the last head, which evaluation reports: NaN where batches are mixed."""
        with self.fabric.autocast():  # Fabric enters it by itself for ``forward`` alone
            if self.config.loss == "temporal":
                logits_TBK = self.wrapped.forward_time(inputs)
                loss = temporal_loss(logits_TBK, target, smoothing)
                last = logits_TBK.mean(0) if self.config.model.readout == "mean" else logits_TBK[-1]
            else:
                heads = self.wrapped(inputs, all_heads=True)
                loss, last = deep_supervision_loss(heads, target, smoothing), heads[-1]
        if self.mix is not None:
            return loss, torch.full_like(loss, torch.nan, requires_grad=False)
        with torch.no_grad():
            return loss, nn.functional.cross_entropy(last.detach().to(loss.dtype), target)
