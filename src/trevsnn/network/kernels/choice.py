"""Which blocks are computed by kernels, and which by plain operations."""

from __future__ import annotations

import functools
import os
import warnings

import torch
from torch import nn

from trevsnn.accelerator import VARIABLE, has_triton
from trevsnn.network.blocks import Expand, PointwiseDepthwise
from trevsnn.network.config import Kernels
from trevsnn.network.lean.block import LeanBlock


def block(
    expand: Expand, project: PointwiseDepthwise, gamma: nn.Parameter | None, dtype: torch.dtype, pixels: int, kernels: Kernels
) -> LeanBlock:
    """A block of these halves for one pass; see :class:`trevsnn.network.lean.block.LeanBlock`.

    Raises:
        RuntimeError: ``kernels`` is "triton", and they cannot compute it.
    """
    if kernels != "eager" and (why := _why_not(expand, project, dtype, forced=kernels == "triton")) is None:
        from trevsnn.network.kernels.block import KernelBlock  # Triton is not everywhere

        return KernelBlock(expand, project, gamma, dtype, pixels)
    if kernels == "triton":
        raise RuntimeError(f"kernels='triton', but {why}: use kernels='auto', which takes plain operations then.")
    return LeanBlock(expand, project, gamma, dtype, pixels)


#: How far, relative to the norm, kernels may lie from plain operations: a few roundings of bfloat16, and a spike or two.
TOLERANCE = 0.02


def _why_not(expand: Expand, project: PointwiseDepthwise, dtype: torch.dtype, *, forced: bool) -> str | None:
    """Why kernels cannot compute a block; None if they can."""
    conv = expand.dw1
    device = conv.weight.device
    interpreted = forced and os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        return f"the network is on the device {device.type}, and they are for CUDA"
    if not has_triton():
        return "Triton is not installed"
    if os.environ.get(VARIABLE) == "0":
        return f"{VARIABLE}=0 turns them off"
    from trevsnn.network.kernels.block import fits  # Triton is not everywhere

    if not fits(expand, project, dtype):
        return f"they are for the network's own blocks in bfloat16 or float16, not for {str(dtype).removeprefix('torch.')}"
    if not interpreted and (fault := fault_of_kernels(device, dtype, conv.in_channels, conv.kernel_size[0])) is not None:
        return fault
    return None


@functools.cache
def fault_of_kernels(device: torch.device, dtype: torch.dtype, channels: int, kernel_size: int) -> str | None:
    """What is wrong with the kernels on a device, found out once by a small block that plain operations compute too; None if
    nothing is. A fault is warned of, since plain operations take over."""
    try:
        difference = difference_of_kernels(device, dtype, channels, kernel_size)
        fault = f"they lie {difference:.2g} from plain operations on this device" if not difference < TOLERANCE else None
    except Exception as error:  # whatever a compiler or driver raises, there is another way
        fault = f"they fail on this device ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    if fault is not None:
        warnings.warn(f"Triton kernels for {channels} channels are not used: {fault}.", stacklevel=2)
    return fault


def difference_of_kernels(device: torch.device, dtype: torch.dtype, channels: int, kernel_size: int) -> float:
    """The largest difference of values and gradients, relative to the norm, between kernels and plain operations."""
    from trevsnn.network.kernels.block import KernelBlock

    with torch.random.fork_rng([]), torch.no_grad():
        torch.default_generator.manual_seed(0)  # not the device's, which is not restored
        expand, project = Expand(channels, kernel_size), PointwiseDepthwise(channels, kernel_size)
        gamma = nn.Parameter(torch.rand(1, channels, 1, 1))
        potential, grad = torch.randn(2, 2, channels, 9, 13).to(device).unbind()
        for module in (expand, project):
            for parameter in module.to(device).parameters():
                parameter.add_(torch.randn(parameter.shape).to(device), alpha=0.3)
        gamma = gamma.to(device)
        results = []
        for kind in (LeanBlock, KernelBlock):
            own = kind(expand, project, nn.Parameter(gamma), dtype, potential[:, 0].numel())
            value, trace = own.forward_traced(potential)
            assert value is not None
            results.append([value, own.forward(potential), own.backward(grad, trace), *(g for _, g in own.gradients())])
    pairs = zip(*results, strict=True)
    return max(float((ours - plain).norm() / plain.norm().clamp_min(1e-6)) for plain, ours in pairs)
