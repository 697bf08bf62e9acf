"""Forward and backward pass of a training step as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from trevsnn.errors import UsageError

WARM_UP = 2  # passes before the capture, in which libraries choose their algorithms and kernels are compiled


def check_capturable(fabric: Fabric) -> None:
    """Raise UsageError unless a training runs in one process on CUDA."""
    if fabric.device.type != "cuda" or fabric.world_size > 1:
        where = f"{fabric.world_size} of them on {fabric.device.type}"
        raise UsageError(f"cuda_graph is for one process on CUDA, and this run has {where}: leave it out.")


class GraphedPasses:
    """Computes a loss and its gradients by a CUDA graph, captured at the first call.

    A pass launches thousands of operations. Where the batch is small, the host takes longer for that than the card does
    to compute them; a graph launches them all at once, as PyTorch's notes on CUDA graphs say. Weights and buffers are
    read and changed where they are, so that nobody may put others in their place.

    Args:
        passes: from inputs and target, on a CUDA device, to the loss (), through the backward pass.
        model: whose parameters it gives gradients, and whose buffers it changes.
    """

    def __init__(self, passes: Callable[[Tensor, Tensor], Tensor], model: nn.Module) -> None:
        self._passes, self._model = passes, model
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: Tensor, target: Tensor) -> Tensor:
        """The loss, (), which the next call overwrites; parameters have their gradients afterwards, those of before are gone.

        Args:
            inputs, target: of the shapes and dtypes of the first call.

        Raises:
            ValueError: they are of other ones.
        """
        if self._graph is None:
            self._graph = self._capture(inputs, target)
        for given, captured in ((inputs, self._inputs), (target, self._target)):
            if given.shape != captured.shape or given.dtype != captured.dtype:
                raise ValueError(
                    f"the graph was captured with {tuple(captured.shape)} of {captured.dtype}, and is given "
                    f"{tuple(given.shape)} of {given.dtype}: capture another."
                )
        self._inputs.copy_(inputs)
        self._target.copy_(target)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._loss

    def _capture(self, inputs: Tensor, target: Tensor) -> torch.cuda.CUDAGraph:
        self._inputs, self._target = inputs.clone(), target.clone()
        with torch.random.fork_rng([inputs.device], device_type="cuda"):
            self._warm_up()
        self._model.zero_grad(set_to_none=True)  # so that gradients lie in the graph's own memory
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on to place data in pinned memory.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._loss = self._passes(self._inputs, self._target).detach()
        self._gradients = [(p, p.grad) for p in self._model.parameters() if p.grad is not None]
        return graph

    def _warm_up(self) -> None:
        """Passes that leave no trace in the buffers: a run that is resumed captures again, and is to go on as before."""
        buffers = list(self._model.buffers())
        before = [buffer.clone() for buffer in buffers]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._model.zero_grad(set_to_none=True)
                self._passes(self._inputs, self._target)
        torch.cuda.current_stream().wait_stream(side)
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
