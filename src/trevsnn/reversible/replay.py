"""Running any module a second time as it ran the first, under a graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trevsnn.reversible.checksum import SAMPLE_TOLERANCE, Checksum
from trevsnn.reversible.circumstances import Circumstances, random_state, random_states
from trevsnn.reversible.leftovers import Leftovers
from trevsnn.reversible.stand_ins import Entry, Fence, ReplayError, beginning, leaf_of, leaves_of_graph, stand_ins_of
from trevsnn.reversible.two_pass import Code, Gradients, Neighbour, SecondPass, View


def refuse_second_derivatives() -> None:
    """Raise RuntimeError in a backward pass that is to be differentiated itself."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "backward with create_graph=True, for second derivatives, cannot go through backprop='exact' or 'reversible', "
            "whose backward pass is not differentiable: use backprop='autograd'."
        )


def refuse_function_transforms() -> None:
    """Raise RuntimeError inside ``torch.func.grad``, ``vmap`` and their like."""
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            "torch.func transforms cannot go through backprop='exact' or 'reversible', which have a backward pass of their "
            "own: use backprop='autograd'."
        )


class Evidence(NamedTuple):
    """By what a second pass is known to have computed the same: F's value, and what it left in its modules."""

    value: Checksum
    leftovers: Leftovers


class Replay:
    """Both passes of any function F of states: the second one runs it again, under a graph.

    Both passes run it alike: with gradients enabled, under the same autocast, from the same random state, on the same
    parameters, buffers and settings of its modules, so that it takes the same path. The graph of the first pass is freed at once. Buffers change in the first pass only. Forward hooks of modules run in
    both passes, backward hooks in the second.

    Args:
        function: F; a module, or a function that calls ``modules``.
        modules: whose parameters and buffers the function uses, where it is no module itself.
        views: of each argument what F is given in its place; None for the state or input itself. Nothing for the views of the
            run.
        verify: compare what the second pass computes with what the first one did, by a checksum. Each pass reads the value
            about once more, and about 520 bytes are kept.
        name: of F in errors.
    """

    def __init__(
        self, function: Callable[..., Tensor], *modules: nn.Module, views: Sequence[View | None] = (),
        verify: bool = True, name: str | None = None,
    ) -> None:  # fmt: skip
        self.function = function
        self.modules = (function,) if isinstance(function, nn.Module) else modules
        self.views, self.verify = views, verify
        self.name = type(function).__name__ if name is None else name

    def for_run(self, views: Sequence[View | None], *, verify: bool, name: str) -> Replay:
        """The same with the views and the name that a run has for it, if it has no views of its own."""
        replay = copy.copy(self)
        replay.views, replay.verify, replay.name = self.views or views, self.verify and verify, name
        return replay

    def parameters(self) -> Iterable[Tensor]:
        """Those of the modules, each once."""
        return dict.fromkeys(p for module in self.modules for p in module.parameters())

    def __call__(self, *states: Tensor | None) -> Tensor:
        """F under plain autograd."""
        return self._call(
            [state if state is None or view is None else view(state) for state, view in self._viewed(states)]
        )

    def first_pass(self, *states: Tensor | None) -> tuple[Tensor, SecondPass]:
        """F, and the pass that runs it again under what it ran under.

        What F gives out beside its value hangs on the graph of this pass, which begins at the arguments and parameters: there a
        gradient on its way back is stopped.

        Raises:
            ReplayError: F uses a tensor whose gradient would be lost, or changes a large buffer.
        """
        arguments = [_argument(state, view) for state, view in self._viewed(states)]
        versions = [0 if argument is None else argument._version for argument in arguments]
        there = [argument for argument in arguments if argument is not None]
        device = next((tensor.device for tensor in (*there, *self.parameters())), torch.device("cpu"))
        circumstances, before = Circumstances(device, *self.modules), random_states(device)
        leftovers = Leftovers(self.modules) if self.verify else None
        with torch.enable_grad():
            given = [
                None if shown is None else Fence.apply(self.name, shown, state)
                for shown, state in zip(arguments, states, strict=True)
            ]
            stand_ins = stand_ins_of(circumstances, lambda p: Fence.apply(self.name, p, None))
        fences = {tensor.grad_fn for tensor in (*given, *stand_ins.values()) if tensor is not None}
        with circumstances.with_parameters(stand_ins), torch.enable_grad():
            value = self._call(given)
        circumstances.check_unchanged(self.name)
        self._check_arguments(arguments, versions)
        self._check_value(value, fences)
        if not all(map(torch.equal, before, random_states(device))):
            circumstances.random = before
        value = value.detach()
        evidence = None
        if leftovers is not None:
            leftovers.note()
            evidence = Evidence(Checksum(value), leftovers)
        return value, partial(self.second_pass, circumstances, evidence)

    def second_pass(
        self, circumstances: Circumstances, evidence: Evidence | None,
        seen: Sequence[Neighbour | None], adjoint: Tensor, state: Tensor | None,
    ) -> Gradients:  # fmt: skip
        """See :class:`trevsnn.reversible.SecondPass`; the chain rule is autograd's.

        Detached aliases stand in for parameters, so that hooks on them see the whole gradient once, from autograd.

        Raises:
            ReplayError: F computed something else than in the first pass.
        """
        codes = [None if n is None else _code(n, view) for n, view in zip(seen, self._views(seen), strict=True)]
        leaves = [
            None if n is None or code is None else _leaf(code, wanted=n.adjoint is not None)
            for n, code in zip(seen, codes, strict=True)
        ]
        stand_ins, precision = stand_ins_of(circumstances, leaf_of), circumstances.precision
        with (
            circumstances.restored(stand_ins), torch.enable_grad(), precision.context(),
            random_state(circumstances.random, precision.device),
        ):  # fmt: skip
            value = self._call([beginning(leaf) for leaf in leaves])
            exact = all(n is None or n.exact for n in seen)
            left_the_same = evidence is None or not exact or evidence.leftovers.same()
        if evidence is not None:
            self._verify(evidence.value, value, left_the_same, exact=exact)
        if state is not None:
            state.sub_(value.detach())
        if not value.requires_grad:
            return []
        sources = [
            (leaf, code, neighbour)
            for leaf, code, neighbour in zip(leaves, codes, seen, strict=True)
            if leaf is not None and code is not None and neighbour is not None and leaf.requires_grad
        ]
        wanted = [leaf for leaf, _, _ in sources] + list(stand_ins.values())
        with torch.enable_grad():
            # A hook may keep what it sees, and the adjoint changes in place.
            end = Entry.apply(value, adjoint.clone() if self._has_backward_hooks() else adjoint)
        targets = [(code, neighbour) for _, code, neighbour in sources]
        del value
        grads: list[Tensor | None] = list(torch.autograd.grad(end, wanted, allow_unused=True))  # type: ignore[arg-type]
        del leaves, sources, wanted
        for place, (code, neighbour) in enumerate(targets):
            grad, grads[place] = grads[place], None
            if grad is not None:
                neighbour.add(grad if isinstance(code, Tensor) else code.pull_back(grad))
            del grad
        own = zip(stand_ins, grads[len(targets) :], strict=True)
        # Autograd may return one tensor for two parameters, or an expanded one.
        return [(parameter, grad.clone()) for parameter, grad in own if grad is not None]

    def _views(self, arguments: Sequence[object]) -> Sequence[View | None]:
        return self.views or [None] * len(arguments)

    def _viewed(self, states: Sequence[Tensor | None]) -> Iterable[tuple[Tensor | None, View | None]]:
        return zip(states, self._views(states), strict=True)

    def _has_backward_hooks(self) -> bool:
        parts = (part for module in self.modules for part in module.modules())
        return any(part._backward_hooks or part._backward_pre_hooks for part in parts)

    def _call(self, arguments: Sequence[Tensor | None]) -> Tensor:
        try:
            return self.function(*arguments)
        except Exception as error:
            shapes = ", ".join("None" if a is None else str(tuple(a.shape)) for a in arguments)
            error.add_note(f"raised by {self.name}, given {shapes}")
            raise

    def _check_arguments(self, arguments: Sequence[Tensor | None], versions: Sequence[int]) -> None:
        # What a view shows is the function's own to change; a state, or an input, is not.
        for (argument, view), version in zip(self._viewed(arguments), versions, strict=True):
            if argument is not None and view is None and argument._version != version:
                raise ReplayError(
                    f"{self.name} changes a state or input that it is given in place, as inplace=True does, which others need: "
                    "have it work on a copy."
                )

    def _check_value(self, value: object, fences: set[Any]) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"{self.name} returned a {type(value).__name__}; a transform returns one tensor.")
        for tensor in leaves_of_graph(value, fences):
            raise ReplayError(
                f"{self.name} uses a tensor of shape {tuple(tensor.shape)} that requires a gradient, but is neither one of its "
                "arguments nor a parameter of its modules, perhaps one kept from an earlier call, so that its gradient would "
                "be lost: make it a parameter, detach it, or use backprop='autograd'."
            )

    def _verify(self, checksum: Checksum, value: Tensor, left_the_same: bool, *, exact: bool) -> None:
        if exact and not checksum.same(value):
            raise ReplayError(
                f"{self.name} computed another value in the backward pass than in the forward pass, so that its gradient "
                "would be that of another network: it keeps state outside its buffers, draws random numbers that torch "
                "does not, or uses an operation that is not deterministic; change that, or use backprop='autograd'."
            )
        if not left_the_same:
            raise ReplayError(
                f"{self.name} left something else in its attributes in the backward pass than in the forward pass, so that its "
                "gradient may be that of another network: it keeps state outside its buffers, as SpikingJelly's neurons do; "
                "make it a buffer, or use backprop='autograd'."
            )
        if not exact and not (distance := checksum.distance(value)) <= SAMPLE_TOLERANCE:
            raise ReplayError(
                f"{self.name} computed a value in the backward pass that differs by {distance:.1e} from that of the forward "
                "pass: it is not replayable, or backprop='reversible' has lost too much of the states it sees; use "
                "backprop='exact'."
            )


def _argument(state: Tensor | None, view: View | None) -> Tensor | None:
    """What F is given in the first pass: the beginning of a graph, as in the second, so that it takes the same path."""
    if state is None:
        return None
    with torch.no_grad():
        shown = state.detach() if view is None else view(state).detach()
    return shown.requires_grad_(state.requires_grad)


def _code(neighbour: Neighbour, view: View | None) -> Tensor | Code:
    """What F saw, coded if there is a view."""
    if view is None:
        return neighbour.decode()
    return view.code(neighbour.value) if isinstance(neighbour.value, Tensor) else neighbour.value


def _leaf(code: Tensor | Code, *, wanted: bool) -> Tensor:
    """What F is given in the second pass, as the beginning of a graph, if a gradient is asked for."""
    return (code.detach() if isinstance(code, Tensor) else code.seen()).requires_grad_(wanted)
