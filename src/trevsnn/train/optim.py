"""Optimizer, learning-rate schedule and gradient clipping, all of timm and PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.agc import adaptive_clip_grad
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import SGD, Optimizer

from trevsnn.run.config import OptimConfig, RunConfig

LAMB_EPS = 1e-8  # as published; timm's is 1e-6
MUON_VECTORS = 0.2  # learning rate of vectors and depthwise kernels under Muon, as a share of the matrices'


def lr_factor(config: RunConfig) -> float:
    """The factor on the config's learning rates: ``batch_size / lr_per``, or 1."""
    return 1.0 if config.optim.lr_per is None else config.batch_size / config.optim.lr_per


def build_optimizer(model: nn.Module, config: RunConfig) -> Optimizer:
    """The configured optimizer, without weight decay on biases, gains and other vectors.

    With ``decay_gains`` what has a single axis is left out alone, biases and BatchNorm's scales: gains, gammas and alphas
    have four axes. With ``layer_decay`` the n-th group of ``model.group_matcher`` from the top has ``lr * layer_decay^n``.
    """
    optim = config.optim
    special: dict[str, dict[str, Any]] = {
        "adamw": {"fused": True},  # the same in one pass over each weight, in a third of the time
        "lamb": {"eps": LAMB_EPS, "trust_clip": optim.trust_clip},
        # Standardised weights bear any learning rate; with biases and gains at the same, hidden neurons fall silent.
        "muon": {"fallback_lr_scale": MUON_VECTORS},
    }
    # timm asks the model which of its parameters are vectors; groups made beforehand it takes as they are.
    decayed: Any = model
    if optim.decay_gains and optim.layer_decay is not None:
        decayed = param_groups_layer_decay(model, optim.weight_decay, layer_decay=optim.layer_decay)
    elif optim.decay_gains:
        decayed = param_groups_weight_decay(model, optim.weight_decay)
    elif optim.layer_decay is not None:
        special[optim.name]["layer_decay"] = optim.layer_decay
    return create_optimizer_v2(
        decayed, optim.name, optim.lr * lr_factor(config), optim.weight_decay, **special[optim.name]
    )


def build_scheduler(optimizer: Optimizer, config: RunConfig, steps_per_epoch: int) -> CosineLRScheduler:
    """Linear warm-up, then a cosine. ``step_update(n)`` sets the learning rate of training step n, which depends on n alone.

    Of N steps, W of them warm-up, step n has, with all rates times :func:`lr_factor`, and a group's own ``lr_scale``::

        n < W    warmup_lr + (lr - warmup_lr) n / W
        n >= W   min_lr + (lr - min_lr) (1 + cos(pi (n - W) / (N - W))) / 2
    """
    factor = lr_factor(config)
    total, warmup = config.epochs * steps_per_epoch, round(config.optim.warmup_epochs * steps_per_epoch)
    return CosineLRScheduler(
        optimizer,
        t_initial=max(total - warmup, 1),
        lr_min=config.optim.min_lr * factor,
        warmup_t=warmup,
        warmup_prefix=True,
        warmup_lr_init=config.optim.warmup_lr * factor,
        t_in_epochs=False,
    )


def rate_of_step(config: RunConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of training step ``step``, counted from 0, as :func:`build_scheduler` sets it."""
    optimizer = SGD([nn.Parameter(torch.empty(0))], lr=config.optim.lr * lr_factor(config))
    build_scheduler(optimizer, config, steps_per_epoch).step_update(step)
    return optimizer.param_groups[0]["lr"]


def clip_gradients(parameters: Iterable[nn.Parameter], heads: Iterable[nn.Parameter], config: OptimConfig) -> Tensor:
    """Clip gradients in place.

    Adaptive clipping leaves out the heads, as its authors do (Brock et al., ICML 2021), unless ``agc_heads`` is set.

    Args:
        parameters: all of the model's.
        heads: those of its heads.
        config: with ``clip``, ``clip_mode`` and ``agc_heads``.

    Returns:
        The norm () of the whole gradient before clipping.
    """
    trained = [p for p in parameters if p.grad is not None]
    norm = get_total_norm([p.grad for p in trained if p.grad is not None])
    if config.clip is None:
        return norm
    if config.clip_mode == "norm":
        clip_grads_with_norm_(trained, config.clip, norm)
    else:
        excluded = set() if config.agc_heads else set(heads)
        adaptive_clip_grad([p for p in trained if p not in excluded], config.clip)
    return norm
