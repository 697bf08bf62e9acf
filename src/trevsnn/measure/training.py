"""Bytes of a whole training, counted on tensors without data: of what stands in memory, and of a step of a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from trevsnn.measure.memory import forget_data
from trevsnn.measure.step import TrainingStep
from trevsnn.measure.tracker import LiveStorage
from trevsnn.network.losses import temporal_loss
from trevsnn.network.model import TRevSNN
from trevsnn.network.slicing import SLICE_BYTES_ACCELERATOR
from trevsnn.reversible.memory_owner import OWNERS, owner
from trevsnn.run.config import RunConfig
from trevsnn.train.build import leave_untrained
from trevsnn.train.optim import build_optimizer

#: Bytes by part: "gradients" those that were there at the peak, the others of OWNERS.
Parts = dict[str, int]


@dataclasses.dataclass(frozen=True)
class ConfiguredStep(TrainingStep):
    """The training step of a run's config: of its loss, and of pictures seen row by row where it says so."""

    config: RunConfig = dataclasses.field(default_factory=RunConfig)

    @classmethod
    def of(cls, config: RunConfig, batch: int) -> ConfiguredStep:
        """A step of so many items, on the CPU."""
        return cls(batch, config.data.image_size, config.precision, "cpu", config)

    def inputs(self, config: object = None) -> tuple[Tensor, Tensor]:
        """Inputs and classes, as :meth:`TrainingStep.inputs`; rows (B, T, C, 1, S)."""
        x, target = super().inputs(self.config.model)
        return (x[..., :1, :].clone() if self.config.data.rows else x), target

    def loss(self, model: TRevSNN, x: Tensor, target: Tensor) -> Tensor:
        """The forward pass to the config's loss (), in its precision."""
        if self.config.loss == "deep_supervision":
            return super().loss(model, x, target)
        with self.autocast():
            return temporal_loss(model.forward_time(x), target)

    def build(self, config: object = None) -> TRevSNN:
        """A new network, of which is trained what the run trains."""
        model = super().build(self.config.model)
        leave_untrained(model, self.config)
        if self.config.model.backprop == "reversible":  # its bytes do not depend on alpha, but at 1 it takes any T
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "alphas" in name:
                        parameter.fill_(1.0)
        return model


def for_device(config: RunConfig, cuda: bool) -> RunConfig:
    """The config with an accelerator's slices where the device is one, and plain operations."""
    model = config.model
    if cuda and model.slice_bytes is None:
        model = dataclasses.replace(model, slice_bytes=SLICE_BYTES_ACCELERATOR)
    return dataclasses.replace(config, model=dataclasses.replace(model, kernels="eager"))


def count_standing(config: RunConfig) -> Parts:
    """Bytes that are there in every step: "parameters", "buffers", all "gradients", what the "optimizer" keeps, the
    "averaged weights", and "optimizer's step", what that takes for itself while it computes."""
    model = ConfiguredStep.of(config, 2).build()
    real = config.optim.name == "muon"  # which reads its number of steps
    with nullcontext() if real else FakeTensorMode():
        if not real:
            forget_data(model)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = build_optimizer(model, config)
        for group in optimizer.param_groups:
            group["ns_steps"] = 1  # of Muon: another would only take time
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        known = [*model.parameters(), *model.buffers(), *(p.grad for p in trained if p.grad is not None)]
        with LiveStorage(known) as tracker:
            optimizer.step()
        kept = _bytes([t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)])
        parameters, buffers = _bytes(model.parameters()), _bytes(model.buffers())
        return {
            "parameters": parameters, "buffers": buffers, "gradients": _bytes(trained), "optimizer": kept,
            "averaged weights": 0 if config.ema_decay is None else parameters + buffers,
            "optimizer's step": sum(tracker.peak().values()) - kept,
        }  # fmt: skip


def count_step(config: RunConfig, batch: int, *, fake: bool = True) -> dict[str, Parts]:
    """Bytes at the peak of a step's forward and backward pass.

    Args:
        config: of :func:`for_device`.
        batch: items that one process computes at a time.
        fake: on tensors without data.

    Returns:
        "alone": the peak with the gradients that are there by then; "activations": the peak of all but gradients.
    """
    step = ConfiguredStep.of(config, batch)
    model = step.build()
    if fake:
        with FakeTensorMode():
            forget_data(model)
            return _count(model, step)
    return _count(model, step)


def _count(model: TRevSNN, step: ConfiguredStep) -> dict[str, Parts]:
    x, target = step.inputs()
    with (
        owner("blocks" if model.backprop == "autograd" else "heads"),
        LiveStorage([*model.parameters(), *model.buffers()]) as tracker,
    ):
        for tensor in (x, target):
            tracker.add(tensor, "input")
        step.loss(model, x, target).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    peaks = {"alone": tracker.peak(gradients=gradients), "activations": tracker.peak(without=gradients)}
    return {name: {part: nbytes for part in OWNERS if (nbytes := peak[part])} for name, peak in peaks.items()}


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
