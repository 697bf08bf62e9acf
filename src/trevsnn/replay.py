"""Running a module a second time as it ran the first: autocast, random state, buffers, parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call


def recompute(
    module: nn.Module,
    below: Tensor,
    above: Tensor | None,
    adjoint: Tensor,
    precision: contextlib.AbstractContextManager[Any],
    random_states: list[Tensor] | None,
    device: str,
) -> tuple[Tensor, Tensor | None, Tensor | None, list[tuple[nn.Parameter, Tensor | None]]]:
    """Compute F(below, above) once more under a graph and backpropagate ``adjoint`` through it.

    Parameters stand in as detached aliases, so that hooks on them see the whole gradient once, from autograd;
    buffers as copies, so that batch statistics do not change a second time.
    """
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    aliases = {name: p.detach().requires_grad_() for name, p in parameters.items()}
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    with torch.enable_grad(), precision, random_state(random_states, device):
        value = functional_call(module, {**aliases, **buffers}, (below, above))
    sources = [t for t in (below, above) if t is not None and t.requires_grad]
    wanted = [*sources, *aliases.values()]
    if not value.requires_grad:
        return value, None, None, []
    grads = list(torch.autograd.grad(value, wanted, adjoint.to(value.dtype), allow_unused=True))
    below_grad = grads.pop(0) if below.requires_grad else None
    above_grad = grads.pop(0) if above is not None else None
    return value.detach(), below_grad, above_grad, list(zip(parameters.values(), grads, strict=True))


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
    with torch.enable_grad():
        entry = _Entry.apply(torch.empty((), requires_grad=True), state.detach())
        return get_gradient_edge(entry), function(entry)


def autocast(device: str, enabled: bool, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    # Without a cache: weights cast in the pass without a graph must not be reused in one with a graph.
    return torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False)


def _random_states(device: str) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device != "cpu":
        states.append(getattr(torch, device).get_rng_state())
    return states


def remember_random_state(
    module: nn.Module, store: dict[tuple[int, int], list[Tensor]], key: tuple[int, int], device: str
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """``module``, noting the random state it started from if it drew from it."""

    def call(below: Tensor, above: Tensor | None) -> Tensor:
        before = _random_states(device)
        value = module(below, above)
        if not all(map(torch.equal, before, _random_states(device))):
            store[key] = before
        return value

    return call


@contextlib.contextmanager
def random_state(states: list[Tensor] | None, device: str) -> Iterator[None]:
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
