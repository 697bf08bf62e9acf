"""Temporal reversible recurrence over all timesteps as one autograd function.

The recurrence has L levels with one state each, and one transform F[l,t] for every level and timestep::

    c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t](c[l-1,t], c[l+1,t-1])

with the input x[t] in place of c[-1,t], and nothing in place of c[L,t-1]. Its inverse, top level first, is::

    c[l,t-1] = (c[l,t] - F[l,t](c[l-1,t], c[l+1,t-1])) / alpha[l,t]

so that the backward pass can do without stored states (Hu et al., ICML 2024). Nothing here knows of images,
convolutions or spikes: transforms are any modules, states any tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from trevsnn.inversion import alpha_values, check_reversible
from trevsnn.owner import owner
from trevsnn.precision import Precision
from trevsnn.replay import Replay, TwoPass, read_out
from trevsnn.spike import PackedState
from trevsnn.tape import Plan, Readout, Tape

Backprop = Literal["exact", "reversible", "autograd"]
BACKPROP_MODES: tuple[str, ...] = get_args(Backprop)


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
    code: Callable[[Tensor], PackedState] | None = None,
    readouts: Sequence[Readout] = (),
    passes: Callable[[nn.Module, Precision], TwoPass] = Replay,
    once: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """Run the recurrence of :func:`unroll` and return the last states, with a choice of what backward keeps.

    ``autograd`` keeps the plain graph: the reference. ``reversible`` keeps the inputs and the last states and nothing
    that grows with T. ``exact`` keeps besides the code of every state, and a float anchor where inversion would lose
    too much: every transform is recomputed on exactly what it saw, so that no spike can differ, and inverted states
    serve alpha's gradient alone.

    Buffers (batch statistics) change in the forward pass only; random state and autocast are replayed.

    Args:
        transforms, alphas, inputs, states: see :func:`unroll`. Transforms may share modules and parameters.
        backprop: what the backward pass rests on.
        code: for ``exact``, :func:`trevsnn.spike.pack` where transforms see states through their spikes alone; None
            keeps the states themselves, which is right for transforms of any kind.
        readouts: ``(t, function)`` of the top level's state after step t, without parameters. What autograd keeps for
            the function stays alive until the backward pass; the state does not, unless the function keeps it.
        passes: how a transform is run twice, from the transform and the precision of the pass.
        once: promise that the backward pass runs once and that the last states are not wanted: none are returned, and
            backward overwrites and frees what it has used.

    Returns:
        The last states ``c[l,T-1]`` (none with ``once``) and the values of the readouts.

    Raises:
        ReversibilityError: in the backward pass, before it begins: ``reversible`` with a T and alpha for which its
            error bound fails. (The forward pass is as good as any.)
        ValueError: lengths that do not fit together, or an unknown mode.
    """
    _check(transforms, alphas, inputs, states, backprop, readouts)
    parameters = list(dict.fromkeys(p for row in transforms for module in row for p in module.parameters()))
    first = 0 if states is not None else 1
    alpha_tensors = [a for step in range(first, len(transforms)) for a in _row(alphas, step)]
    tensors = [*dict.fromkeys(inputs), *(states or ()), *alpha_tensors, *parameters]
    needs_graph = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)

    if backprop == "autograd" or not needs_graph:
        given: list[Any] = [None] * len(readouts)
        last: list[Tensor] = []
        for step, last in enumerate(unroll(transforms, alphas, inputs, states)):
            for i, (at, function) in enumerate(readouts):
                if at == step:
                    given[i] = function(last[-1])
        return [] if once else last, given

    position = {id(x): i for i, x in enumerate(dict.fromkeys(inputs))}
    plan = Plan(
        transforms=transforms,
        input_index=[position[id(x)] for x in inputs],
        has_states=states is not None,
        parameters=parameters,
        exact=backprop == "exact",
        code=code,
        readouts=readouts,
        passes=passes,
        once=once,
    )
    outputs = _Reversible.apply(plan, *tensors)
    levels = 0 if once else plan.levels
    return list(outputs[:levels]), list(outputs[levels:])


class _Reversible(torch.autograd.Function):
    """Forward without a graph; backward walks t = T-1..0 and l = L-1..0 with one transform's temporaries at a time."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, states, alphas, _ = plan.split(tensors)
        tape = Tape(plan, alphas, plan.split(ctx.needs_input_grad[1:])[2])
        precision = Precision.current(tensors[0].device)
        passes = [[plan.passes(module, precision) for module in row] for row in plan.transforms]
        first = [[tape.remember(step, level, p) for level, p in enumerate(row)] for step, row in enumerate(passes)]
        last: list[Tensor] = []
        with precision.context(), owner("states"):
            for step, last in enumerate(unroll(first, alphas, [inputs[i] for i in plan.input_index], states or None)):
                tape.keep(step, last)
                for i, (at, function) in enumerate(plan.readouts):
                    if at == step:
                        tape.readouts[i] = read_out(function, last[-1])
        ctx.plan, ctx.tape, ctx.passes = plan, tape, passes
        ctx.set_materialize_grads(False)
        read = tuple(tape.readouts[i][1].detach() for i in range(len(plan.readouts)))
        if plan.once:
            tape.last = last
            ctx.save_for_backward(*tensors)
            return read
        ctx.save_for_backward(*tensors, *last)
        return (*last, *read)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, tape, passes = ctx.plan, ctx.tape, ctx.passes
        count = len(ctx.needs_input_grad) - 1
        tensors = ctx.saved_tensors[:count]
        # By level, each inverted as soon as nothing at its timestep needs it any more.
        states: list[Tensor] = tape.take_last() if plan.once else list(ctx.saved_tensors[count:])
        owned = [plan.once] * plan.levels  # states to be overwritten
        inputs, initial, alphas, _ = plan.split(tensors)
        if not plan.exact and plan.timesteps > 1:
            for level, column in enumerate(zip(*alphas[1:], strict=True)):
                check_reversible(level, [alpha_values(alpha) for alpha in column], states[level].dtype)
        input_grads, state_grads, alpha_grads, parameter_grads = plan.split([None] * count)
        input_needs, _, alpha_needs, _ = plan.split(ctx.needs_input_grad[1:])
        place_of = {id(parameter): i for i, parameter in enumerate(plan.parameters)}

        def seen(step: int, level: int) -> Tensor | PackedState:
            if step < 0:
                return initial[level]
            if plan.exact and step < plan.timesteps - 1:
                return tape.seen[step, level]
            return states[level]

        with owner("adjoints"):
            adjoints = [torch.zeros_like(state) for state in states]
            if not plan.once:
                for adjoint, grad in zip(adjoints, grads, strict=False):
                    if grad is not None:
                        adjoint.copy_(grad)
            for source in set(plan.input_index):
                if input_needs[source]:
                    input_grads[source] = torch.zeros_like(inputs[source], dtype=adjoints[0].dtype)
        read_grads = grads[0 if plan.once else plan.levels :]
        for step in reversed(range(plan.timesteps)):
            for i, (at, _) in enumerate(plan.readouts):
                if at == step and read_grads[i] is not None:
                    edge, value = tape.readouts[i]
                    (grad,) = torch.autograd.grad(value, [edge], read_grads[i], retain_graph=not plan.once)
                    adjoints[-1].add_(grad)
            has_previous = step >= plan.first_alpha
            for level in reversed(range(plan.levels)):
                source, has_above = plan.input_index[step], has_previous and level + 1 < plan.levels
                inverts = has_previous and step > 0 and tape.inverts(step, level)
                if inverts and not owned[level]:
                    with owner("states"):
                        states[level], owned[level] = states[level].clone(), True
                found = passes[step][level].second_pass(
                    inputs[source] if level == 0 else seen(step, level - 1),
                    seen(step - 1, level + 1) if has_above else None,
                    adjoints[level],
                    tape.kept[step, level],
                    input_grads[source] if level == 0 else adjoints[level - 1],
                    adjoints[level + 1] if has_above else None,
                    states[level] if inverts else None,
                )
                with owner("parameter gradients"):
                    for parameter, grad in found:
                        place = place_of[id(parameter)]
                        total = parameter_grads[place]
                        parameter_grads[place] = grad if total is None else total + grad
                    del found
                if not has_previous:
                    continue
                alpha, adjoint = alphas[step][level], adjoints[level]
                if inverts:
                    states[level].div_(alpha)
                if step > 0:
                    states[level], owned[level] = tape.restore(step - 1, level, states[level]), True
                previous = states[level] if step > 0 else initial[level]
                if alpha_needs[step][level]:
                    alpha_grads[step][level] = (adjoint * previous).sum_to_size(alpha.shape).to(alpha.dtype)
                adjoint.mul_(alpha)
            if plan.once:
                tape.forget(step)
        if plan.has_states:
            state_grads = adjoints
        input_grads = [g if g is None else g.to(x.dtype) for g, x in zip(input_grads, inputs, strict=True)]
        flat_alphas = [grad for row in alpha_grads if row is not None for grad in row]
        return (None, *input_grads, *state_grads, *flat_alphas, *parameter_grads)


def _row(alphas: Sequence[Sequence[Tensor] | None], step: int) -> Sequence[Tensor]:
    row = alphas[step]
    if row is None:
        raise ValueError(f"alphas[{step}] is None, but timestep {step} has an earlier state to multiply.")
    return row


def _check(
    transforms: Sequence[Sequence[nn.Module]],
    alphas: Sequence[Sequence[Tensor] | None],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor] | None,
    backprop: str,
    readouts: Sequence[Readout],
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
    if any(not 0 <= step < steps for step, _ in readouts):
        raise ValueError(f"readouts are at steps {[step for step, _ in readouts]}; they must lie in 0..{steps - 1}.")
