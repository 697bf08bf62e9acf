"""Counting the multiply-accumulates and synaptic operations of a forward pass of any network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@dataclass
class Operation:
    """The convolutions or matrix products of one module, summed over its calls.

    Attributes:
        name: of the module.
        macs: multiply-accumulates of the dense computation, padding included.
        spiking: whether all elements of all inputs were 0 or 1.
        synops: synaptic operations if spiking: for each spike the number of weights it reaches.
        spikes: ones among the elements of the inputs, up to the first input that is not spikes.
        inputs: elements of the inputs.
    """

    name: str
    macs: int = 0
    spiking: bool = True
    synops: int = 0
    spikes: int = 0
    inputs: int = 0

    @property
    def rate(self) -> float:
        """Share of the inputs' elements that are one; 1 if not spiking."""
        return self.spikes / self.inputs if self.spiking and self.inputs else 1.0


class OperationCounter(TorchDispatchMode):
    """Counts convolutions and matrix products while it is active, by the innermost module that is running.

    Args:
        model: whose modules are counted; a module with several names counts under its first.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.operations: dict[str, Operation] = {}
        # torch.utils.module_tracker gives the modules that are running as a set. Where a module runs one that lies
        # outside of it, as a timestep does its level's shared half-block, a set does not tell which is the inner one.
        self._inside: list[str] = []
        self._handles: list[Any] = []

    def __enter__(self) -> OperationCounter:
        for name, module in self.model.named_modules():
            enter: Any = lambda *_, name=name: self._inside.append(name)  # noqa: E731
            self._handles.append(module.register_forward_pre_hook(enter))
            self._handles.append(module.register_forward_hook(lambda *_: self._leave()))
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        for handle in self._handles:
            handle.remove()

    def _leave(self) -> None:
        self._inside.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is aten.convolution.default:
            self._count_convolution(args, out)
        elif func in _PRODUCTS:
            left, right = args[-2:] if func in (aten.mm.default, aten.bmm.default) else args[1:3]
            self._count_product(left, right)
        return out

    def _add(self, macs: int, x: Tensor, synops: Callable[[], int]) -> None:
        name = self._inside[-1] if self._inside else ""
        operation = self.operations.setdefault(name, Operation(name))
        operation.macs += macs
        operation.inputs += x.numel()
        operation.spiking = operation.spiking and is_binary(x)
        if operation.spiking:
            operation.synops += synops()
            operation.spikes += int(x.sum(dtype=torch.float64))

    def _count_convolution(self, args: Any, out: Tensor) -> None:
        x, weight, _, stride, padding, dilation, _, _, groups = args[:9]
        macs = out.numel() * weight[0].numel()

        def synops() -> int:
            # The number of spikes that each output sees, without the padding, which holds none.
            per_group = x.unflatten(1, (groups, -1)).sum(2, dtype=torch.float64)
            window = torch.ones(groups, 1, *weight.shape[2:], dtype=torch.float64, device=x.device)
            no_padding = [0] * len(stride)
            spikes = torch.convolution(per_group, window, None, stride, padding, dilation, False, no_padding, groups)
            return round(float(spikes.sum())) * weight.shape[0] // groups

        self._add(macs, x, synops)

    def _count_product(self, left: Tensor, right: Tensor) -> None:
        macs = left.numel() * right.shape[-1]
        if is_binary(left) and is_binary(right):  # attention between spikes counts where both are one
            self._add(macs, left, lambda: int((left.double() @ right.double()).sum()))
        elif is_binary(right):
            self._add(macs, right, lambda: int(right.sum(dtype=torch.float64)) * left.shape[-2])
        else:
            self._add(macs, left, lambda: int(left.sum(dtype=torch.float64)) * right.shape[-1])


_PRODUCTS = (aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default)


def is_binary(x: Tensor) -> bool:
    """Whether every element is 0 or 1."""
    return bool(((x == 0) | (x == 1)).all())


@torch.no_grad()
def count_operations(model: nn.Module, x: Tensor) -> list[Operation]:
    """The operations of one forward pass in evaluation mode.

    Args:
        model: any network.
        x: its input; figures are sums over the batch.

    Returns:
        One for each module that computes a convolution or matrix product, in the order of their first calls.
    """
    model.eval()
    with OperationCounter(model) as counter:
        model(x)
    return list(counter.operations.values())


def energy_joules(operations: Iterable[Operation], pj_per_mac: float, pj_per_synop: float) -> float:
    """Joules: ``pj_per_mac`` x MACs of layers whose input is numbers ``+ pj_per_synop`` x synaptic operations of the others.

    The field's convention, with 4.6 and 0.9 pJ (45 nm, 32-bit floating point; Horowitz, ISSCC 2014, as used by Hu et
    al., ICML 2024). It counts arithmetic alone: no memory access, no neuron updates, no control.
    """
    return 1e-12 * sum(pj_per_synop * op.synops if op.spiking else pj_per_mac * op.macs for op in operations)
