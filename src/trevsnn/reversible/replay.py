"""Running any module a second time as it ran the first: autocast, random state, buffers, parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call

from trevsnn.reversible.memory_owner import owner
from trevsnn.reversible.precision import Precision
from trevsnn.reversible.two_pass import Gradients, Neighbour, SecondPass


class Circumstances(NamedTuple):
    """What a module ran under: device and autocast, and the random state it started from if it drew from it."""

    precision: Precision
    random: list[Tensor] | None


class Replay:
    """Both passes of any function F(below, above): the second one runs it again, under a graph.

    Args:
        function: F; a module, or a function that calls ``modules``.
        modules: whose parameters and buffers the function uses, where it is no module itself.
    """

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        self.module = function if isinstance(function, nn.Module) else _Bound(function, modules)

    def parameters(self) -> Iterable[nn.Parameter]:
        """Those of the modules, each once."""
        return self.module.parameters()

    def __call__(self, below: Tensor, above: Tensor | None) -> Tensor:
        """F(below, above) under plain autograd."""
        return self.module(below, above)

    def first_pass(self, below: Tensor, above: Tensor | None) -> tuple[Tensor, SecondPass]:
        """F(below, above), and the pass that runs it again under what it ran under."""
        before = _random_states(below.device.type)
        value = self.module(below, above)
        drew = not all(map(torch.equal, before, _random_states(below.device.type)))
        circumstances = Circumstances(Precision.current(below.device), before if drew else None)
        return value, partial(self.second_pass, circumstances)

    def second_pass(
        self,
        circumstances: Circumstances,
        below: Neighbour,
        above: Neighbour | None,
        adjoint: Tensor,
        state: Tensor | None,
    ) -> Gradients:
        """See :class:`trevsnn.reversible.SecondPass`; the chain rule is autograd's.

        Parameters stand in as detached aliases, so that hooks on them see the whole gradient once, from autograd;
        buffers as copies, so that batch statistics do not change a second time.
        """
        parameters = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        aliases = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        buffers = {name: b.clone() for name, b in self.module.named_buffers()}
        inputs = [_leaf(neighbour) for neighbour in (below, above)]
        precision, random = circumstances
        with torch.enable_grad(), precision.context(), _random_state(random, precision.device.type):
            value = functional_call(self.module, {**aliases, **buffers}, (inputs[0], inputs[1]))
        if state is not None:
            state.sub_(value.detach())
        if not value.requires_grad:
            return []
        sources = [
            (leaf, neighbour)
            for leaf, neighbour in zip(inputs, (below, above), strict=True)
            if leaf is not None and neighbour is not None and neighbour.adjoint is not None
        ]
        wanted = [leaf for leaf, _ in sources] + list(aliases.values())
        grads = torch.autograd.grad(value, wanted, adjoint.to(value.dtype), allow_unused=True)
        for (_, neighbour), grad in zip(sources, grads, strict=False):
            if grad is not None:
                neighbour.add(grad)
        own = zip(parameters.values(), grads[len(sources) :], strict=True)
        # Autograd may return one tensor for two parameters, or an expanded one.
        return [(parameter, grad.clone()) for parameter, grad in own if grad is not None]


class _Bound(nn.Module):
    """A function with the modules it uses, as one module."""

    def __init__(self, function: Callable[..., Tensor], modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.function = function
        self.used = nn.ModuleList(modules)

    def forward(self, below: Tensor, above: Tensor | None) -> Tensor:
        return self.function(below, above)


class _Entry(torch.autograd.Function):
    """The identity on ``state``; begins a graph without keeping the state alive."""

    @staticmethod
    def forward(ctx: Any, leaf: Tensor, state: Tensor) -> Tensor:
        return state.view_as(state)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None]:
        """Nothing goes further back: :meth:`trevsnn.reversible.adjoints.Adjoints.add_readouts` takes dL/dc at this edge."""
        return None, None


def read_out(function: Callable[[Tensor], Tensor], state: Tensor) -> tuple[GradientEdge, Tensor]:
    """Apply ``function`` under a graph that keeps only what the function saves: its beginning and its value."""
    with torch.enable_grad(), owner("heads"):
        entry = _Entry.apply(torch.empty((), requires_grad=True), state.detach())
        return get_gradient_edge(entry), function(entry)


def _leaf(neighbour: Neighbour | None) -> Tensor | None:
    """The value as the beginning of a graph, if a gradient is asked for."""
    if neighbour is None:
        return None
    return neighbour.decode().detach().requires_grad_(neighbour.adjoint is not None)


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
