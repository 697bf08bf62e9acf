"""Temporal reversible recurrence over all timesteps as one autograd function.

The recurrence has L levels with one state each, and one transform F[l,t] for every level and timestep::

    c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t](c[l-1,t], c[l+1,t-1])

with the input x[t] in place of c[-1,t], and nothing in place of c[L,t-1]. Its inverse, top level first, is::

    c[l,t-1] = (c[l,t] - F[l,t](c[l-1,t], c[l+1,t-1])) / alpha[l,t]

so that the backward pass can do without stored states (Hu et al., ICML 2024). Nothing here knows of images,
convolutions or spikes: transforms are any modules, states any tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call

Backprop = Literal["exact", "reversible", "autograd"]
BACKPROP_MODES: tuple[str, ...] = get_args(Backprop)

#: Largest error of an inverted state, relative to the largest state, in units of rounding: beyond it, ``exact``
#: keeps a float anchor. 256 units are 1.5e-5 in float32 and 2.8e-14 in float64.
ANCHOR_TOLERANCE = 256.0

#: Largest error of an inverted state, relative to the largest state, that ``reversible`` accepts.
REVERSIBLE_TOLERANCE = 1e-2


class ReversibilityError(ValueError):
    """The rounding error of chained inversion may exceed what ``backprop="reversible"`` accepts."""


class StateCode(Protocol):
    """A compact form of a state that is all the transforms see of it (see :class:`trevsnn.spike.SpikeCode`)."""

    def encode(self, state: Tensor) -> Any:
        """Return a NamedTuple with the tensor to keep as its first field."""
        ...

    def decode(self, packed: Any) -> Tensor:
        """Return a state on which every transform has the value and gradient it has on the encoded one."""
        ...


def unroll(
    transforms: Sequence[Sequence[Callable[[Tensor, Tensor | None], Tensor]]],
    alphas: Sequence[Sequence[Tensor] | None],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor] | None = None,
) -> Iterator[list[Tensor]]:
    """Run the recurrence ``c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t](c[l-1,t], c[l+1,t-1])`` in plain torch operations.

    Args:
        transforms: ``transforms[t][l]``, called as ``F(below, above)``; ``above`` is None at the top level and where
            there is no earlier state.
        alphas: ``alphas[t][l]``, broadcastable to the state; ``alphas[t]`` is not read where there is no earlier state.
        inputs: ``x[t]``, one tensor for each timestep (the same one may stand at several).
        states: ``c[l,-1]``; None for a recurrence that starts from nothing.

    Yields:
        After each timestep the list of all L states.
    """
    current: list[Tensor] | None = None if states is None else list(states)
    for step, (row, x) in enumerate(zip(transforms, inputs, strict=True)):
        previous = current
        current = []
        below = x
        for level, transform in enumerate(row):
            above = previous[level + 1] if previous is not None and level + 1 < len(row) else None
            state = transform(below, above)
            if previous is not None:
                state = _row(alphas, step)[level] * previous[level] + state
            current.append(state)
            below = state
        yield current


def run(
    transforms: Sequence[Sequence[nn.Module]],
    alphas: Sequence[Sequence[Tensor] | None],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor] | None = None,
    *,
    backprop: Backprop = "exact",
    code: StateCode | None = None,
    readouts: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
) -> tuple[list[Tensor], dict[int, Tensor]]:
    """Run the recurrence of :func:`unroll` and return the last states, with a choice of what backward keeps.

    ``autograd`` keeps the plain graph: the reference. ``reversible`` keeps the inputs and the last states and nothing
    that grows with T. ``exact`` keeps besides the code of every state, and a float anchor where inversion would lose
    too much: every transform is recomputed on exactly what it saw, so that no spike can differ, and inverted states
    serve alpha's gradient alone.

    Buffers (batch statistics) change in the forward pass only; random state and autocast are replayed.

    Args:
        transforms, alphas, inputs, states: see :func:`unroll`. Transforms may share modules and parameters.
        backprop: what the backward pass rests on.
        code: for ``exact``; None keeps the states themselves, which is right for transforms of any kind.
        readouts: ``{t: function}`` of the top level's state after step t, without parameters. What autograd keeps for
            the function stays alive until the backward pass; the state does not, unless the function keeps it.

    Returns:
        The last states ``c[l,T-1]`` and ``{t: readout}``.

    Raises:
        ReversibilityError: ``reversible`` with a T and alpha for which its error bound fails.
        ValueError: lengths that do not fit together, or an unknown mode.
    """
    readouts = {} if readouts is None else readouts
    _check(transforms, alphas, inputs, states, backprop, readouts)
    parameters = list(dict.fromkeys(p for row in transforms for module in row for p in module.parameters()))
    first = 0 if states is not None else 1
    alpha_tensors = [a for step in range(first, len(transforms)) for a in _row(alphas, step)]
    tensors = [*dict.fromkeys(inputs), *(states or ()), *alpha_tensors, *parameters]
    needs_graph = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)

    if backprop == "autograd" or not needs_graph:
        given: dict[int, Tensor] = {}
        last: list[Tensor] = []
        for step, last in enumerate(unroll(transforms, alphas, inputs, states)):
            if step in readouts:
                given[step] = readouts[step](last[-1])
        return last, given

    position = {id(x): i for i, x in enumerate(dict.fromkeys(inputs))}
    plan = _Plan(
        transforms=transforms,
        input_index=[position[id(x)] for x in inputs],
        has_states=states is not None,
        parameters=parameters,
        exact=backprop == "exact",
        code=code,
        readouts=readouts,
    )
    outputs = _Reversible.apply(plan, *tensors)
    levels = len(transforms[0])
    return list(outputs[:levels]), dict(zip(sorted(readouts), outputs[levels:], strict=True))


def inversion_error(error: Tensor, alpha: Tensor, dtype: torch.dtype) -> Tensor:
    """Bound the error of c[l,t-1] after one inversion ``c' = (c - F) / alpha``, given the error of c[l,t].

    With unit roundoff u and states at most M in magnitude, an error e*M becomes at most
    ``(e / |alpha| + u * (3 + 1 / |alpha|)) * M``: the product, the sum and the difference round once each before the
    division by alpha, and the quotient once after it.

    Args:
        error: e, of alpha's shape or a scalar, float64 on the CPU.
        alpha: alpha[l,t].
        dtype: of the states.

    Returns:
        The new bound, float64 on the CPU, of alpha's shape.
    """
    factor = 1 / alpha.detach().abs().to("cpu", torch.float64)
    return error * factor + torch.finfo(dtype).eps / 2 * (3 + factor)


def plan_anchors(alphas: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Choose which elements of which states ``exact`` keeps in float, so that inversion stays within its tolerance.

    Args:
        alphas: the alpha of one level in the order of time.
        dtype: of the states.

    Returns:
        For each alpha a mask of its shape: true where the state it multiplies is to be kept (an "anchor").
    """
    limit = ANCHOR_TOLERANCE * torch.finfo(dtype).eps / 2
    masks: list[Tensor] = []
    error = torch.zeros((), dtype=torch.float64)
    for alpha in reversed(alphas):
        error = inversion_error(error, alpha, dtype)
        masks.append(error > limit)
        error = error.masked_fill(masks[-1], 0.0)
    return masks[::-1]


def check_reversible(level: int, alphas: Sequence[Tensor], dtype: torch.dtype) -> None:
    """Raise :class:`ReversibilityError` where inverting through all of one level's ``alphas`` may lose too much."""
    error = torch.zeros((), dtype=torch.float64)
    for alpha in reversed(alphas):
        error = inversion_error(error, alpha, dtype)
    if error.max() > REVERSIBLE_TOLERANCE:
        smallest = min(float(alpha.detach().abs().min()) for alpha in alphas)
        raise ReversibilityError(
            f"backprop='reversible' may reconstruct states of level {level} with a relative error of "
            f"{float(error.max()):.1e}, more than the {REVERSIBLE_TOLERANCE:g} it accepts, because inverting "
            f"{len(alphas)} steps in {str(dtype).removeprefix('torch.')} divides by |alpha| down to {smallest:.3g} each "
            "time: use backprop='exact', fewer timesteps, or float64."
        )


@dataclass
class _Plan:
    """What :class:`_Reversible` runs: everything of :func:`run` that is not a tensor to differentiate."""

    transforms: Sequence[Sequence[nn.Module]]
    input_index: list[int]  # position among the distinct inputs, for each timestep
    has_states: bool
    parameters: list[nn.Parameter]
    exact: bool
    code: StateCode | None
    readouts: Mapping[int, Callable[[Tensor], Tensor]]

    def __post_init__(self) -> None:
        self.timesteps, self.levels = len(self.transforms), len(self.transforms[0])
        self.first_alpha = 0 if self.has_states else 1  # the first timestep with an earlier state

    def split(self, values: Sequence[Any]) -> tuple[list[Any], list[Any], list[list[Any] | None], list[Any]]:
        """Values in the order of apply's tensors as: distinct inputs, states, alphas[t], parameters."""
        rest = iter(values)
        inputs = [next(rest) for _ in range(max(self.input_index) + 1)]
        states = [next(rest) for _ in range(self.levels if self.has_states else 0)]
        alphas: list[list[Any] | None] = [None] * self.first_alpha
        alphas += [[next(rest) for _ in range(self.levels)] for _ in range(self.first_alpha, self.timesteps)]
        return inputs, states, alphas, list(rest)


class _Tape:
    """What the forward pass leaves for the backward pass besides its inputs and the last states.

    Tensors are handed to autograd's own store by ``tensors``; here stay only their places in it.
    """

    def __init__(self, plan: _Plan, alphas: list[list[Any] | None], alphas_need_grad: list[list[bool] | None]) -> None:
        self.plan, self.alphas, self.alphas_need_grad = plan, alphas, alphas_need_grad
        self.tensors: list[Tensor] = []
        self.codes: dict[tuple[int, int], tuple[int, Any]] = {}
        self.anchors: dict[tuple[int, int], tuple[int, Tensor]] = {}
        self.anchor_masks: list[list[Tensor]] = []
        self.random_states: dict[tuple[int, int], list[Tensor]] = {}
        self.readouts: dict[int, tuple[GradientEdge, Tensor]] = {}

    def inverts(self, level: int) -> bool:
        """Whether the backward pass rebuilds the float states of ``level``."""
        needs_alpha = any(row is not None and row[level] for row in self.alphas_need_grad)
        return not self.plan.exact or (needs_alpha and self.plan.code is not None)

    def keep(self, step: int, states: list[Tensor]) -> None:
        """Store of the states after ``step`` what the mode calls for; the last ones are stored by the caller."""
        if not self.anchor_masks:
            # Alphas that multiply states of this pass; the dtype of the states is known only now.
            rows = [row for row in self.alphas[1:] if row is not None]
            columns = [[row[level] for row in rows] for level in range(self.plan.levels)]
            if not self.plan.exact:
                for level, column in enumerate(columns):
                    check_reversible(level, column, states[level].dtype)
            self.anchor_masks = [plan_anchors(c, s.dtype) for c, s in zip(columns, states, strict=True)]
        if not self.plan.exact or step == self.plan.timesteps - 1:
            return
        for level, state in enumerate(states):
            if self.plan.code is None:
                self.codes[step, level] = (self._store(state), None)
                continue
            if self.plan.levels > 1:
                packed = self.plan.code.encode(state)
                self.codes[step, level] = (self._store(packed[0]), (type(packed), packed[1:]))
            mask = self.anchor_masks[level][step]
            if self.inverts(level) and mask.any():
                mask = mask.to(state.device)
                kept = state if mask.all() else state.masked_select(mask)
                self.anchors[step, level] = (self._store(kept), mask)

    def seen(self, saved: Sequence[Tensor], step: int, level: int) -> Tensor:
        """The state as the transforms saw it, rebuilt from its code (``exact``, all but the last step)."""
        place, rest = self.codes[step, level]
        if rest is None:
            return saved[place]
        kind, fields = rest
        assert self.plan.code is not None
        return self.plan.code.decode(kind(saved[place], *fields))

    def correct(self, saved: Sequence[Tensor], step: int, level: int, state: Tensor) -> Tensor:
        """Put the anchored elements, if any, into an inverted state."""
        if (step, level) not in self.anchors:
            return state
        place, mask = self.anchors[step, level]
        return saved[place] if mask.all() else state.masked_scatter(mask, saved[place])

    def _store(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1


class _Reversible(torch.autograd.Function):
    """Forward without a graph; backward walks t = T-1..0 and l = L-1..0 with one transform's graph alive at a time."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, states, alphas, _ = plan.split(tensors)
        tape = _Tape(plan, alphas, plan.split(ctx.needs_input_grad[1:])[2])
        ctx.device = tensors[0].device.type
        ctx.autocast = torch.is_autocast_enabled(ctx.device), torch.get_autocast_dtype(ctx.device)
        watched = [
            [_remember_random_state(module, tape.random_states, (step, level), ctx.device) for level, module in enumerate(row)]
            for step, row in enumerate(plan.transforms)
        ]
        last: list[Tensor] = []
        with _autocast(ctx.device, *ctx.autocast):
            for step, last in enumerate(unroll(watched, alphas, [inputs[i] for i in plan.input_index], states or None)):
                tape.keep(step, last)
                if step in plan.readouts:
                    tape.readouts[step] = _read_out(plan.readouts[step], last[-1])
        ctx.plan, ctx.tape = plan, tape
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *last, *tape.tensors)
        tape.tensors, tape.alphas = [], []
        return (*last, *(tape.readouts[step][1].detach() for step in sorted(plan.readouts)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, tape = ctx.plan, ctx.tape
        saved = ctx.saved_tensors
        count = len(ctx.needs_input_grad) - 1
        tensors, last, kept = saved[:count], saved[count : count + plan.levels], saved[count + plan.levels :]
        inputs, initial, alphas, _ = plan.split(tensors)
        found = plan.split([None] * count)
        input_grads, state_grads, alpha_grads, parameter_grads = found
        input_needs, _, alpha_needs, _ = plan.split(ctx.needs_input_grad[1:])
        place_of = {id(parameter): i for i, parameter in enumerate(plan.parameters)}

        def seen(step: int, level: int) -> Tensor:
            if step < 0:
                return initial[level]
            if plan.exact and step < plan.timesteps - 1:
                return tape.seen(kept, step, level)
            return states[level]

        states = list(last)  # by level, each inverted as soon as nothing at its timestep needs it any more
        adjoints = [
            torch.zeros_like(state) if grad is None else grad
            for state, grad in zip(last, grads[: plan.levels], strict=True)
        ]
        readout_grads = dict(zip(sorted(plan.readouts), grads[plan.levels :], strict=True))
        for step in reversed(range(plan.timesteps)):
            if readout_grads.get(step) is not None:
                edge, value = tape.readouts[step]
                (grad,) = torch.autograd.grad(value, [edge], readout_grads[step], retain_graph=True)
                adjoints[-1] = adjoints[-1] + grad
            has_previous = step >= plan.first_alpha
            for level in reversed(range(plan.levels)):
                source = plan.input_index[step]
                below = inputs[source] if level == 0 else seen(step, level - 1)
                above = seen(step - 1, level + 1) if has_previous and level + 1 < plan.levels else None
                value, below_grad, above_grad, module_grads = _recompute(
                    plan.transforms[step][level],
                    below.detach().requires_grad_(level > 0 or input_needs[source]),
                    None if above is None else above.detach().requires_grad_(),
                    adjoints[level],
                    _autocast(ctx.device, *ctx.autocast),
                    tape.random_states.get((step, level)),
                    ctx.device,
                )
                for parameter, grad in module_grads:
                    place = place_of[id(parameter)]
                    parameter_grads[place] = _add(parameter_grads[place], grad)
                if level > 0:
                    adjoints[level - 1] = _add(adjoints[level - 1], below_grad)
                else:
                    input_grads[source] = _add(input_grads[source], below_grad)
                if not has_previous:
                    continue
                alpha, adjoint = alphas[step][level], adjoints[level]
                if step == 0:
                    states[level] = initial[level]
                elif plan.exact and plan.code is None:
                    states[level] = tape.seen(kept, step - 1, level)
                elif tape.inverts(level):
                    inverted = (states[level] - value) / alpha
                    states[level] = tape.correct(kept, step - 1, level, inverted)
                if alpha_needs[step][level]:
                    alpha_grads[step][level] = (adjoint * states[level]).sum_to_size(alpha.shape).to(alpha.dtype)
                adjoints[level] = alpha * adjoint
                if above_grad is not None:
                    adjoints[level + 1] = adjoints[level + 1] + above_grad
        if plan.has_states:
            state_grads = adjoints
        flat_alphas = [grad for row in alpha_grads if row is not None for grad in row]
        return (None, *input_grads, *state_grads, *flat_alphas, *parameter_grads)


def _recompute(
    module: nn.Module,
    below: Tensor,
    above: Tensor | None,
    adjoint: Tensor,
    autocast: contextlib.AbstractContextManager[Any],
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
    with torch.enable_grad(), autocast, _random_state(random_states, device):
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


def _read_out(function: Callable[[Tensor], Tensor], state: Tensor) -> tuple[GradientEdge, Tensor]:
    """Apply ``function`` under a graph that keeps only what the function saves: its beginning and its value."""
    with torch.enable_grad():
        entry = _Entry.apply(torch.empty((), requires_grad=True), state.detach())
        return get_gradient_edge(entry), function(entry)


def _add(total: Tensor | None, grad: Tensor | None) -> Tensor | None:
    if total is None or grad is None:
        return grad if total is None else total
    return total + grad


def _row(alphas: Sequence[Sequence[Tensor] | None], step: int) -> Sequence[Tensor]:
    row = alphas[step]
    if row is None:
        raise ValueError(f"alphas[{step}] is None, but timestep {step} has an earlier state to multiply.")
    return row


def _autocast(device: str, enabled: bool, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    # Without a cache: weights cast in the pass without a graph must not be reused in one with a graph.
    return torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False)


def _random_states(device: str) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device != "cpu":
        states.append(getattr(torch, device).get_rng_state())
    return states


def _remember_random_state(
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


def _check(
    transforms: Sequence[Sequence[nn.Module]],
    alphas: Sequence[Sequence[Tensor] | None],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor] | None,
    backprop: str,
    readouts: Mapping[int, Callable[[Tensor], Tensor]],
) -> None:
    if backprop not in BACKPROP_MODES:
        raise ValueError(f"backprop is {backprop!r}; it must be one of {', '.join(BACKPROP_MODES)}.")
    steps, levels = len(transforms), {len(row) for row in transforms}
    if steps == 0 or len(levels) != 1 or levels == {0}:
        raise ValueError(f"transforms must be T rows of L modules each; got {steps} rows of lengths {sorted(levels)}.")
    for name, given in (("alphas", alphas), ("inputs", inputs)):
        if len(given) != steps:
            raise ValueError(f"{name} has {len(given)} entries for {steps} timesteps: give one for each.")
    if states is not None and {len(states)} != levels:
        raise ValueError(f"states has {len(states)} entries for {levels.pop()} levels: give one for each.")
    if any(not 0 <= step < steps for step in readouts):
        raise ValueError(f"readouts are at steps {sorted(readouts)}; they must lie in 0..{steps - 1}.")
