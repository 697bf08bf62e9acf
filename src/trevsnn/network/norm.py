"""Batch normalisation that can be run again, and over the batches of several processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def normalise(maps: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """``weight * (x - mean) / sqrt(var + eps) + bias`` per channel, outside autograd; the output has the maps' dtype."""
    return nn.functional.batch_norm(maps, mean, var, weight, bias, training=False, eps=eps)


def normalise_backward(
    grad: Tensor, maps: Tensor, mean: Tensor, var: Tensor, weight: Tensor, eps: float, *, training: bool, shared: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of maps, weight and bias of :func:`normalise`.

    With ``n = (x - mean) / sqrt(var + eps)`` and g = dL/dy, y the output, per channel, where a mean is over the batch and all pixels::

        dL/dweight = sum(g n)
        dL/dbias   = sum(g)
        dL/dx      = weight / sqrt(var + eps) (g - mean(g) - n mean(g n))       training: through the statistics
        dL/dx      = weight / sqrt(var + eps) g                                  evaluation

    Args:
        grad: of the output.
        maps, mean, var, weight, eps: of the forward pass.
        training: go through the statistics too: they are the batch's.
        shared: they are those of all processes' batches, which then all have to come here.
    """
    invstd = (var + eps).rsqrt()
    if not (training and shared):
        return torch.ops.aten.native_batch_norm_backward(
            grad, maps, weight, mean, var, mean, invstd, training, eps, [True, True, True]
        )
    by_channel = (1, -1, 1, 1)
    normalised = (maps - mean.view(by_channel)) * invstd.view(by_channel)
    sums = torch.stack([(grad * normalised).sum((0, 2, 3)), grad.sum((0, 2, 3))])
    of_all = sums.clone()
    dist.all_reduce(of_all)
    along, constant = (of_all * len(sums[0]) / (grad.numel() * dist.get_world_size())).to(maps.dtype)
    grad_maps = grad - constant.view(by_channel) - normalised * along.view(by_channel)
    return grad_maps * (weight * invstd).view(by_channel), sums[0], sums[1]


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float, shared: bool
    ) -> Tensor:
        ctx.save_for_backward(maps, weight, mean, var)
        ctx.eps, ctx.shared = eps, shared
        return normalise(maps, mean, var, weight, bias, eps)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """dL/dmaps, dL/dweight and dL/dbias, through the batch's statistics: :func:`normalise_backward`."""
        maps, weight, mean, var = ctx.saved_tensors
        grads = normalise_backward(grad_outputs[0], maps, mean, var, weight, ctx.eps, training=True, shared=ctx.shared)
        return (*grads, None, None, None, None)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation in two parts, statistics and :func:`normalise`, so that the second can be run again alone.

    Numbers, parameters and buffers are those of :class:`torch.nn.BatchNorm2d`; in float32 the last bit may differ.
    With ``shared``, in training, statistics are those of all processes of ``torch.distributed``, whose batches have to
    be of one size; this runs on any device, unlike :class:`torch.nn.SyncBatchNorm`.
    """

    shared = False

    @torch.no_grad()
    def statistics(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (C,) to normalise by: of this batch in training, which also updates the running
        ones; the running ones in evaluation.

        Raises:
            ValueError: one value per channel is too few to train on.
        """
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        if not self.training:
            return self.running_mean, self.running_var
        if maps.numel() == maps.shape[1]:
            raise ValueError(
                f"batch statistics of a map of shape {tuple(maps.shape)} need more than one value per channel: use a "
                "larger batch or larger pictures, or model.eval()."
            )
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if not self.shared:
            return torch.batch_norm_update_stats(maps, self.running_mean, self.running_var, self.momentum)
        mean, var = _statistics_of_all(*torch.batch_norm_update_stats(maps, None, None, 0.0))
        count = maps.numel() // maps.shape[1] * dist.get_world_size()
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_((var * count / (count - 1)).to(self.running_var.dtype), self.momentum)
        return mean, var

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training:
            return super().forward(input)
        return _Normalise.apply(input, self.weight, self.bias, *self.statistics(input), self.eps, self.shared)  # type: ignore[no-any-return]


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
