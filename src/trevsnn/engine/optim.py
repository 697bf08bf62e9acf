"""Optimizer and learning-rate schedule, both timm's."""

from __future__ import annotations

from timm.optim import create_optimizer_v2
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from trevsnn.config import RunConfig


def build_optimizer(model: nn.Module, config: RunConfig) -> Optimizer:
    """AdamW or LAMB without weight decay on biases and other vectors."""
    return create_optimizer_v2(model, config.optim.name, config.optim.lr, config.optim.weight_decay)


def build_scheduler(optimizer: Optimizer, config: RunConfig, steps_per_epoch: int) -> CosineLRScheduler:
    """Linear warm-up and cosine by step. ``step_update(n)`` sets the rate of step n, a function of n alone."""
    return CosineLRScheduler(
        optimizer,
        t_initial=config.epochs * steps_per_epoch,
        lr_min=config.optim.min_lr,
        warmup_t=config.optim.warmup_epochs * steps_per_epoch,
        warmup_lr_init=config.optim.warmup_lr,
        t_in_epochs=False,
    )
