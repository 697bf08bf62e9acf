"""Batch normalisation that can be run again, and over the batches of several processes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Statistics(NamedTuple):
    """What maps are normalised by.

    Attributes:
        mean, var: (C,), the variance biased.
        of_batch: they are the batch's, so that a gradient goes through them too; otherwise they are constants.
        shared: the batch is that of all processes.
    """

    mean: Tensor
    var: Tensor
    of_batch: bool
    shared: bool


def normalise(maps: Tensor, by: Statistics, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """``weight * (x - mean) / sqrt(var + eps) + bias`` per channel; the output has the maps' dtype.

    Autograd takes the statistics for constants here.
    """
    return nn.functional.batch_norm(maps, by.mean, by.var, weight, bias, training=False, eps=eps)


def normalise_backward(
    grad: Tensor, maps: Tensor, by: Statistics, weight: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of maps, weight and bias of :func:`normalise`; of statistics of all processes, these all come here.

    With ``n = (x - mean) / sqrt(var + eps)`` and g = dL/dy, y the output, per channel, where a mean is over the batch and all pixels::

        dL/dweight = sum(g n)
        dL/dbias   = sum(g)
        dL/dx      = weight / sqrt(var + eps) (g - mean(g) - n mean(g n))       statistics of the batch
        dL/dx      = weight / sqrt(var + eps) g                                  constant ones

    A weight of None is 1.
    """
    mean, var, of_batch, shared = by
    invstd = (var + eps).rsqrt()
    if not shared:
        weight = torch.ones_like(invstd) if weight is None else weight  # CUDA's operation has no case without
        return torch.ops.aten.native_batch_norm_backward(
            grad, maps, weight, mean, var, mean, invstd, of_batch, eps, [True, True, True]
        )
    by_channel = (1, -1, 1, 1)
    normalised = (maps - mean.view(by_channel)) * invstd.view(by_channel)
    # In the statistics' dtype, and rounded to that of the maps at the end: a sum over all pixels soon exceeds float16.
    sums = torch.stack([(grad * normalised).sum((0, 2, 3)), grad.sum((0, 2, 3), dtype=mean.dtype)])
    of_all = sums.clone()
    dist.all_reduce(of_all)
    along, constant = of_all * len(sums[0]) / (grad.numel() * dist.get_world_size())
    grad_maps = grad - constant.view(by_channel) - normalised * along.view(by_channel)
    scale = invstd if weight is None else weight * invstd
    return (grad_maps * scale.view(by_channel)).to(maps.dtype), sums[0], sums[1]


class _Normalise(torch.autograd.Function):
    """:func:`normalise` by the batch's own statistics, with a gradient through them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        maps: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float, shared: bool
    ) -> Tensor:
        return normalise(maps, Statistics(mean, var, True, shared), weight, bias, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        maps, weight, bias, mean, var, ctx.eps, ctx.shared = inputs
        ctx.save_for_backward(maps, weight, mean, var)
        ctx.affine = weight is not None, bias is not None

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """dL/dmaps, dL/dweight and dL/dbias: :func:`normalise_backward`, which can be differentiated once more."""
        if ctx.shared and torch.is_grad_enabled():
            raise RuntimeError(
                "batch statistics of all processes have no second derivative: leave out create_graph=True, or normalise "
                "by each process's own."
            )
        maps, weight, mean, var = ctx.saved_tensors
        by = Statistics(mean, var, True, ctx.shared)
        grad_maps, *own = normalise_backward(grad_outputs[0], maps, by, weight, ctx.eps)
        return grad_maps, *(g if there else None for g, there in zip(own, ctx.affine, strict=True)), *4 * (None,)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation in two parts, statistics and :func:`normalise`, so that the second can be run again alone.

    Options, numbers, parameters and buffers are those of :class:`torch.nn.BatchNorm2d`; in float32 the last bit may
    differ. With ``shared``, in training, statistics are those of all processes of ``torch.distributed``, whose batches
    have to be of one size; this runs on any device, unlike :class:`torch.nn.SyncBatchNorm`.
    """

    shared = False

    @torch.no_grad()
    def statistics(self, maps: Tensor) -> Statistics:
        """What to normalise maps (B, C, H, W) by: in training the batch's statistics, which also update the running
        ones; in evaluation a copy of the running ones, or the batch's where there are none.

        Raises:
            ValueError: one value per channel is too few for statistics.
        """
        if not self.training and self.running_mean is not None and self.running_var is not None:
            # A copy: a training pass changes them in place, unnoticed by autograd, and a backward pass may come after it.
            return Statistics(self.running_mean.clone(), self.running_var.clone(), of_batch=False, shared=False)
        if maps.numel() == maps.shape[1]:
            raise ValueError(
                f"batch statistics of a map of shape {tuple(maps.shape)} need more than one value per channel: use a "
                "larger batch or larger pictures, or model.eval() with running statistics."
            )
        factor, running = self._update_factor(), (self.running_mean, self.running_var)
        # The operation returns statistics of the dtype of those that it updates: float32 for 16-bit maps.
        wide = torch.float64 if maps.dtype is torch.float64 else torch.float32
        none = torch.zeros(maps.shape[1], dtype=wide, device=maps.device)
        if not (self.shared and self.training):
            mean, var = batch_statistics(maps, *(running if factor else (none, none)), factor)
            return Statistics(mean, var, of_batch=True, shared=False)
        mean, var = _statistics_of_all(*batch_statistics(maps, none, none, 0.0))
        count = maps.numel() // maps.shape[1] * dist.get_world_size()
        for buffer, new in zip(running, (mean, var * count / (count - 1)), strict=True):
            if factor and buffer is not None:
                buffer.lerp_(new.to(buffer.dtype), factor)
        return Statistics(mean, var, of_batch=True, shared=True)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        by = self.statistics(input)
        if not by.of_batch:
            return normalise(input, by, self.weight, self.bias, self.eps)
        return _Normalise.apply(input, self.weight, self.bias, by.mean, by.var, self.eps, by.shared)  # type: ignore[no-any-return]

    def _update_factor(self) -> float:
        """How far the running statistics go towards a batch's, which this counts: momentum, or 1 / n at the n-th batch
        where it is None; 0 where they stay."""
        if not (self.training and self.track_running_stats):
            return 0.0
        if self.num_batches_tracked is None:
            return self.momentum or 0.0
        self.num_batches_tracked.add_(1)
        return 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum


def batch_statistics(maps: Tensor, running_mean: Any, running_var: Any, factor: float) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of maps (B, C, H, W), (C,) each, which the running ones go towards by ``factor``, the variance
    unbiased."""
    if maps.device.type == "mps":
        return plain_batch_statistics(maps, running_mean, running_var, factor)
    return torch.batch_norm_update_stats(maps, running_mean, running_var, factor)


def plain_batch_statistics(
    maps: Tensor, running_mean: Tensor, running_var: Tensor, factor: float
) -> tuple[Tensor, Tensor]:
    """:func:`batch_statistics` in operations that every device has; MPS lacks PyTorch's own."""
    count = maps.numel() // maps.shape[1]
    var, mean = torch.var_mean(maps.to(running_mean.dtype), (0, 2, 3), correction=0)
    running_mean.lerp_(mean, factor)
    running_var.lerp_(var * count / (count - 1), factor)
    return mean, var


def _statistics_of_all(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over all processes from each one's own, of equally many values."""
    own = torch.stack([mean, var])
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    means, variances = torch.stack(gathered).unbind(1)
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)


def share_statistics(model: nn.Module) -> None:
    """Have every :class:`BatchNorm` of a model normalise by the statistics of all processes."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.shared = True
