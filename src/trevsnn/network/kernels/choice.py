"""Which blocks are computed by kernels, and which by plain operations."""

from __future__ import annotations

import functools
import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from trevsnn.accelerator import VARIABLE, has_triton, turned_off
from trevsnn.network.blocks import Expand, PointwiseDepthwise, fuse
from trevsnn.network.config import Kernels
from trevsnn.network.lean.block import LeanBlock
from trevsnn.network.norm import BatchNorm, Statistics, normalise

#: How far, relative to the norm, kernels may lie from plain operations: sums that cancel lose digits of bfloat16, up to 0.024
#: with 4 channels on an H100; a wrong part shows as a tenth at least.
TOLERANCE = 0.1

#: The kinds of device that Triton's programs are compiled for here.
DEVICES = ("cuda",)

#: Whether the convolutions DW1, PW1, PW2 and DW2 have a bias, as those of the network's own blocks do.
Biases = tuple[bool, bool, bool, bool]
ALL_BIASES: Biases = (True, True, True, True)


def block(
    expand: Expand,
    project: PointwiseDepthwise,
    gamma: nn.Parameter | None,
    dtype: torch.dtype,
    pixels: int,
    kernels: Kernels,
) -> LeanBlock:
    """A block of these halves for one pass; see :class:`trevsnn.network.lean.block.LeanBlock`.

    Raises:
        RuntimeError: ``kernels`` is "triton", and they cannot compute it.
    """
    why_not = "" if kernels == "eager" else _why_not(expand, project, dtype, forced=kernels == "triton")
    if why_not is None:
        from trevsnn.network.kernels.block import KernelBlock  # Triton is not everywhere

        return KernelBlock(expand, project, gamma, dtype, pixels)
    if kernels == "triton":
        raise RuntimeError(_refusal(why_not))
    return LeanBlock(expand, project, gamma, dtype, pixels)


def check_kernels(kernels: Kernels, device: torch.device, dtype: torch.dtype) -> None:
    """Find out before anything is computed whether kernels that a config insists on can run.

    Raises:
        ValueError: ``kernels`` is "triton", and they run on no such device, in no such dtype, or are not there.
    """
    if kernels == "triton" and (why_not := _why_not_here(device, dtype, interpreted=_interpreted())):
        raise ValueError(_refusal(why_not))


def keeps_codes(expand: Expand, project: PointwiseDepthwise, dtype: torch.dtype, kernels: Kernels) -> bool:
    """Whether what a block of :func:`block` keeps of its first pass holds codes of the hidden map: kernels of narrow blocks,
    which have it in registers, keep none."""
    if kernels == "eager" or _why_not(expand, project, dtype, forced=kernels == "triton") is not None:
        return True
    from trevsnn.network.kernels.hidden import is_narrow  # Triton is not everywhere

    return not is_narrow(expand.dw1.in_channels, expand.dw1.weight.device)


def _refusal(why_not: str) -> str:
    return f"kernels='triton', but {why_not}: use kernels='auto', which takes plain operations then."


def _why_not_here(device: torch.device, dtype: torch.dtype, *, interpreted: bool) -> str | None:
    """Why kernels cannot compute any block; None if they can."""
    if device.type not in DEVICES and not interpreted:
        return f"the network is on the device {device.type}, and they are for CUDA"
    if not has_triton():
        return "Triton is not installed"
    if turned_off():
        return f"{VARIABLE}=0 turns them off"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"they are for bfloat16 and float16, as in precision bf16-mixed, not for {str(dtype).removeprefix('torch.')}"
    if interpreted and dtype == torch.bfloat16:  # which it multiplies as if they were integers
        return "Triton's interpreter has no products in bfloat16, only in float16"
    return None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _why_not(expand: Expand, project: PointwiseDepthwise, dtype: torch.dtype, *, forced: bool) -> str | None:
    """Why kernels cannot compute a block; None if they can."""
    conv = expand.dw1
    device = conv.weight.device
    interpreted = forced and _interpreted()
    if why_not := _why_not_here(device, dtype, interpreted=interpreted):
        return why_not
    from trevsnn.network.kernels.block import fits  # Triton is not everywhere

    if not fits(expand, project):
        return "they are for the network's own blocks, not for exchanged convolutions"
    if interpreted:
        return None
    biases = tuple(conv.bias is not None for conv in (conv, expand.pw1, project.pw2, project.dw2))
    return fault_of_kernels(device, dtype, conv.in_channels, conv.kernel_size[0], biases)


@functools.cache
def fault_of_kernels(
    device: torch.device, dtype: torch.dtype, channels: int, kernel_size: int, biases: Biases = ALL_BIASES
) -> str | None:
    """What is wrong with the kernels on a device, found out once by a small block that plain operations compute too; None if
    nothing is. A fault is warned of, since plain operations take over."""
    try:
        difference = difference_of_kernels(device, dtype, channels, kernel_size, biases)
        fault = (
            f"they lie {difference:.2g} from plain operations on this device" if not difference < TOLERANCE else None
        )
    except Exception as error:  # whatever a compiler or driver raises, there is another way
        fault = f"they fail on this device ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    if fault is not None:
        warnings.warn(f"Triton kernels for {channels} channels are not used: {fault}.", stacklevel=2)
    return fault


def difference_of_kernels(
    device: torch.device, dtype: torch.dtype, channels: int, kernel_size: int, biases: Biases = ALL_BIASES
) -> float:
    """The largest difference of values and gradients, relative to the norm, between kernels and plain operations.

    Weights up to the threshold are small multiples of 1/4, and of these few, so that in any order and precision sums are
    exact and the same spikes fire.
    """
    from trevsnn.network.kernels.block import KernelBlock  # Triton is not everywhere
    from trevsnn.network.kernels.potential import potential as fused

    dice = torch.Generator().manual_seed(0)

    def draw(shape: torch.Size | tuple[int, ...], low: int, high: int, unit: float) -> Tensor:
        return torch.randint(low, high + 1, shape, generator=dice) * unit

    with torch.random.fork_rng([]), torch.no_grad():  # building modules draws from the CPU's generator
        expand, project = Expand(channels, kernel_size), PointwiseDepthwise(channels, kernel_size)
        expand.pw1 = nn.Conv2d(channels, expand.pw1.out_channels, 1)  # type: ignore[assignment]
        for conv, few in ((expand.dw1, 1.0), (expand.pw1, min(1.0, 6 / channels))):
            kept = torch.rand(conv.weight.shape, generator=dice) < few
            conv.weight.copy_(draw(conv.weight.shape, -1, 1, 0.25) * kept)
            conv.bias = nn.Parameter(draw((conv.out_channels,), -2, 2, 0.25))
        for parameter in project.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=dice), alpha=0.3)
        for conv, biased in zip((expand.dw1, expand.pw1, project.pw2, project.dw2), biases, strict=True):
            conv.bias = conv.bias if biased else None
        shape = (2, channels, 5, 9)
        potential, grad = (torch.randn(shape, generator=dice).to(device) for _ in range(2))
        gamma = nn.Parameter(torch.rand(1, channels, 1, 1, generator=dice).to(device))
        expand.to(device)
        project.to(device)
        results: list[list[Tensor]] = []
        for kind in (LeanBlock, KernelBlock):
            own: Any = kind(expand, project, gamma, dtype, potential[:, 0].numel())
            value, trace = own.forward_traced(potential)
            results.append([value, own.forward(potential), own.backward(grad, trace), *(g for _, g in own.gradients())])
        # A level's potential, from the map itself or normalised below, and a normalised one of half the size above, or none.
        norm, by = BatchNorm(channels).to(device), Statistics(gamma.flatten(), gamma.flatten(), True, False)
        maps = [maps.to(dtype) for maps in (potential, grad[:, :, ::2, ::2])]
        below, above = (normalise(x, by, norm.weight, norm.bias, norm.eps) for x in maps)
        results[0] += [fuse(maps[0], above), fuse(below, above), below]
        as_it_is, from_below, from_above = (maps[0], None, None), (maps[0], norm, by), (maps[1], norm, by)
        results[1] += [fused(as_it_is, from_above), fused(from_below, from_above), fused(from_below, None)]
    pairs = zip(*results, strict=True)
    return max(float((ours - plain).norm() / plain.norm().clamp_min(1e-6)) for plain, ours in pairs)
