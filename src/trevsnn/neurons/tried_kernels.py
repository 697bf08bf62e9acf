"""The Triton kernels of :class:`trevsnn.neurons.Spike`, where they are to be used: each device's are tried once, beside plain operations."""

from __future__ import annotations

import functools
import math
import warnings
from types import ModuleType

import torch
from torch import Tensor

from trevsnn.accelerator import takes_kernels
from trevsnn.neurons.fire import fire


def kernels_for(tensor: Tensor, dtype: torch.dtype | None = None) -> ModuleType | None:
    """The Triton kernels, which give the same bits, if they are to compute something of a tensor."""
    return working_kernels(tensor.device) if takes_kernels(tensor, dtype) else None


@functools.cache
def working_kernels(device: torch.device) -> ModuleType | None:
    """The kernels if they run on a device and give the bits that they should, tried once; a fault is warned of."""
    try:
        from trevsnn.neurons import kernels  # Triton is not everywhere

        other = _differing(kernels, device)
        if not other:
            return kernels
        fault = f"they give other {', '.join(other)} than plain operations"
    except Exception as error:  # whatever a compiler or driver raises, there is another way
        fault = f"they fail ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
    warnings.warn(f"Triton kernels are not used for codes on {device}: {fault}.", stacklevel=2)
    return None


def _differing(kernels: ModuleType, device: torch.device) -> list[str]:
    """What the kernels of a device compute otherwise than plain operations do on the CPU, of one small tensor."""
    from trevsnn.neurons.spike import Spike  # which imports from here

    v = torch.tensor([[-1.0, 0.0, 0.25, 0.5, 1.0, 2.0, math.nan]], dtype=torch.float32, device="cpu")
    gradient = torch.arange(2, 9, dtype=torch.float32, device="cpu")[None]
    code, half = Spike().code(v), torch.float16
    there, bits = v.to(device, copy=True), code.bits.to(device)
    found = {
        "codes": (kernels.code(there, 0.5, 0.0, 1.0), code.bits),
        "spikes": (kernels.fire(there, 0.5, torch.empty_like(there, dtype=half)), fire(v, 0.5).to(half)),
        "spikes of codes": (kernels.decode(bits, 7, 0, half), code.spikes(half)),
        "gradients": (kernels.decode(bits, 7, 1, v.dtype, gradient.to(device)), code.pull_back(gradient)),
        "spikes in place": (kernels.fire(there, 0.5, there), fire(v, 0.5)),  # last, for what it writes over
    }
    return [name for name, pair in found.items() if not torch.equal(*(t.cpu().nan_to_num(9) for t in pair))]
