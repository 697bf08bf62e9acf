"""Temporal reversible recurrence over all timesteps as one autograd function.

The recurrence has L levels with one state each, and one transform F[l,t] for every level and timestep::

    c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t](c[l-1,t], c[l+1,t-1])

with the input x[t] in place of c[-1,t], and nothing in place of c[L,t-1]. Its inverse, top level first, is::

    c[l,t-1] = (c[l,t] - F[l,t](c[l-1,t], c[l+1,t-1])) / alpha[l,t]

so that the backward pass can do without stored states (Hu et al., ICML 2024). Nothing here knows of images,
convolutions or spikes: transforms are any modules, states any tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from trevsnn.inversion import check_reversible
from trevsnn.replay import autocast, read_out, recompute, remember_random_state
from trevsnn.tape import Plan, StateCode, Tape

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
        ReversibilityError: in the backward pass, before it begins: ``reversible`` with a T and alpha for which its
            error bound fails. (The forward pass is as good as any.)
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
    plan = Plan(
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


class _Reversible(torch.autograd.Function):
    """Forward without a graph; backward walks t = T-1..0 and l = L-1..0 with one transform's graph alive at a time."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, states, alphas, _ = plan.split(tensors)
        tape = Tape(plan, alphas, plan.split(ctx.needs_input_grad[1:])[2])
        ctx.device = tensors[0].device.type
        ctx.autocast = torch.is_autocast_enabled(ctx.device), torch.get_autocast_dtype(ctx.device)
        watched = [
            [
                remember_random_state(module, tape.random_states, (step, level), ctx.device)
                for level, module in enumerate(row)
            ]
            for step, row in enumerate(plan.transforms)
        ]
        last: list[Tensor] = []
        with autocast(ctx.device, *ctx.autocast):
            for step, last in enumerate(unroll(watched, alphas, [inputs[i] for i in plan.input_index], states or None)):
                tape.keep(step, last)
                if step in plan.readouts:
                    tape.readouts[step] = read_out(plan.readouts[step], last[-1])
        ctx.plan, ctx.tape = plan, tape
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *last, *tape.tensors)
        tape.tensors, tape.alphas, tape.anchor_masks = [], [], []
        return (*last, *(tape.readouts[step][1].detach() for step in sorted(plan.readouts)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, tape = ctx.plan, ctx.tape
        saved = ctx.saved_tensors
        count = len(ctx.needs_input_grad) - 1
        tensors, last, kept = saved[:count], saved[count : count + plan.levels], saved[count + plan.levels :]
        inputs, initial, alphas, _ = plan.split(tensors)
        if not plan.exact and plan.timesteps > 1:
            for level, column in enumerate(zip(*alphas[1:], strict=True)):
                check_reversible(level, column, last[level].dtype)
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
        adjoints: list[Any] = [
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
                value, below_grad, above_grad, module_grads = recompute(
                    plan.transforms[step][level],
                    below.detach().requires_grad_(level > 0 or input_needs[source]),
                    None if above is None else above.detach().requires_grad_(),
                    adjoints[level],
                    autocast(ctx.device, *ctx.autocast),
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


def _add(total: Tensor | None, grad: Tensor | None) -> Tensor | None:
    if total is None or grad is None:
        return grad if total is None else total
    return total + grad


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
