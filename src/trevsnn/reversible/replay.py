"""Running any module a second time as it ran the first: autocast, random state, buffers, parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call

from trevsnn.network.spike import PackedState
from trevsnn.reversible.memory_owner import owner
from trevsnn.reversible.precision import Precision
from trevsnn.reversible.two_pass import Gradients


class Replay:
    """Two passes through any module F(below, above): the second one runs it again, under a graph."""

    def __init__(self, module: nn.Module, precision: Precision) -> None:
        self.module, self.precision = module, precision

    def first_pass(self, below: Tensor, above: Tensor | None) -> tuple[Tensor, list[Tensor] | None]:
        """The value, and the random state the module started from if it drew from it."""
        before = _random_states(self.precision.device.type)
        value = self.module(below, above)
        drew = not all(map(torch.equal, before, _random_states(self.precision.device.type)))
        return value, before if drew else None

    def second_pass(
        self,
        below: Tensor | PackedState,
        above: Tensor | PackedState | None,
        adjoint: Tensor,
        kept: list[Tensor] | None,
        below_adjoint: Tensor | None,
        above_adjoint: Tensor | None,
        state: Tensor | None,
    ) -> Gradients:
        """See :class:`TwoPass`.

        Parameters stand in as detached aliases, so that hooks on them see the whole gradient once, from autograd;
        buffers as copies, so that batch statistics do not change a second time.
        """
        seen = [(_decoded(below), below_adjoint), (_decoded(above), above_adjoint)]
        parameters = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        aliases = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        buffers = {name: b.clone() for name, b in self.module.named_buffers()}
        inputs = [x if x is None else x.detach().requires_grad_(sink is not None) for x, sink in seen]
        with torch.enable_grad(), self.precision.context(), _random_state(kept, self.precision.device.type):
            value = functional_call(self.module, {**aliases, **buffers}, (inputs[0], inputs[1]))
        if state is not None:
            state.sub_(value.detach())
        if not value.requires_grad:
            return []
        sources = [(x, sink) for x, (_, sink) in zip(inputs, seen, strict=True) if x is not None and sink is not None]
        wanted = [x for x, _ in sources] + list(aliases.values())
        grads = torch.autograd.grad(value, wanted, adjoint.to(value.dtype), allow_unused=True)
        for (_, sink), grad in zip(sources, grads, strict=False):
            if grad is not None:
                sink.add_(grad)
        own = zip(parameters.values(), grads[len(sources) :], strict=True)
        # Autograd may return one tensor for two parameters, or an expanded one.
        return [(parameter, grad.clone()) for parameter, grad in own if grad is not None]


class _Entry(torch.autograd.Function):
    """The identity on ``state``, as a graph's beginning that does not hold the state itself."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, state: Tensor) -> Tensor:
        return state.view_as(state)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None]:
        return None, None


def read_out(function: Callable[[Tensor], Tensor], state: Tensor) -> tuple[GradientEdge, Tensor]:
    """Apply ``function`` under a graph that keeps only what the function saves: its beginning and its value."""
    with torch.enable_grad(), owner("heads"):
        entry = _Entry.apply(torch.empty((), requires_grad=True), state.detach())
        return get_gradient_edge(entry), function(entry)


def _decoded(seen: Tensor | PackedState | None) -> Tensor | None:
    return seen.decode() if isinstance(seen, PackedState) else seen


def _random_states(device: str) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device != "cpu":
        states.append(getattr(torch, device).get_rng_state())
    return states


@contextlib.contextmanager
def _random_state(states: list[Tensor] | None, device: str) -> Iterator[None]:
    """Run under the given random state, if any, and restore the present one afterwards."""
    if states is None:
        yield
        return
    accelerator = [] if device == "cpu" else [getattr(torch, device).current_device()]
    with torch.random.fork_rng(accelerator, device_type=device if accelerator else "cuda"):
        torch.set_rng_state(states[0])
        if accelerator:
            getattr(torch, device).set_rng_state(states[1])
        yield
