"""Temporal reversible recurrence over all timesteps, with backward passes of its own.

The recurrence has L levels with one state each, and one transform F[l,t] for every level and timestep::

    c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t](c[l-1,t], c[l+1,t-1])

with the input x[t] in place of c[-1,t], and nothing in place of c[L,t-1]. Its inverse, top level first, is::

    c[l,t-1] = (c[l,t] - F[l,t](c[l-1,t], c[l+1,t-1])) / alpha[l,t]

so that the backward pass can do without stored states (Hu et al., ICML 2024). Nothing here knows of images,
convolutions or spikes: transforms are any modules, states any tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trevsnn.backprop import BACKPROP_MODES, Backprop
from trevsnn.network.spike import PackedState
from trevsnn.reversible.memory_owner import owner
from trevsnn.reversible.precision import Precision
from trevsnn.reversible.replay import Replay
from trevsnn.reversible.tape import Plan, Readout, Tape
from trevsnn.reversible.two_pass import TwoPass


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
        code: for ``exact``, :func:`trevsnn.network.spike.pack` where transforms see states through their spikes alone; None
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
    if backprop != "autograd" and torch.is_grad_enabled():
        return _run_pieces(transforms, alphas, inputs, states, backprop, code, readouts, passes, once)  # type: ignore[call-arg]
    given: list[Any] = [None] * len(readouts)
    last: list[Tensor] = []
    for step, last in enumerate(unroll(transforms, alphas, inputs, states)):
        for i, (at, function) in enumerate(readouts):
            if at == step:
                given[i] = function(last[-1])
    return [] if once else last, given


@torch.compiler.disable
def _run_pieces(
    transforms: Sequence[Sequence[nn.Module]],
    alphas: Sequence[Sequence[Tensor] | None],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor] | None,
    backprop: Backprop,
    code: Callable[[Tensor], PackedState] | None,
    readouts: Sequence[Readout],
    passes: Callable[[nn.Module, Precision], TwoPass],
    once: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """:func:`run` in the modes that have their own backward pass, which a compiler is not to look into."""
    precision = Precision.current(inputs[0].device)
    plan = Plan(
        passes=[[passes(module, precision) for module in row] for row in transforms],
        parameters=[[[p for p in module.parameters() if p.requires_grad] for module in row] for row in transforms],
        alphas=alphas,
        inputs=inputs,
        initial=states,
        exact=backprop == "exact",
        code=code,
        readouts=readouts,
        once=once,
    )
    tape = Tape(plan)
    token = _Begin.apply(tape, *plan.distinct_inputs, *(states or ()))
    with precision.context(), owner("states"):
        for step, row in enumerate(transforms):
            for level in range(len(row)):
                alpha = _row(alphas, step)[level] if step >= plan.first_alpha else None
                token = _Piece.apply(tape, step, level, token, alpha, *plan.parameters[step][level])
            tape.end_step(step)
    outputs = _End.apply(tape, token)
    levels = 0 if once else plan.levels
    return list(outputs[:levels]), list(outputs[levels:])


# The graph of a recurrence is a chain of pieces, (0,0), (0,1), ..., (T-1,L-1), between a beginning and an end. What runs
# along it is an empty token; states and adjoints lie on the tape, where they are changed in place. Each piece hands the
# gradients of its own parameters to autograd as soon as it is through.


class _Begin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tape: Tape, *tensors: Tensor) -> Tensor:
        ctx.tape = tape
        ctx.save_for_backward(*tensors)
        return tensors[0].new_empty(0)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        found = ctx.tape.final_adjoints()
        return (None, *(g if g is None else g.to(x.dtype) for g, x in zip(found, ctx.saved_tensors, strict=True)))


class _Piece(torch.autograd.Function):
    """``c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t](c[l-1,t], c[l+1,t-1])``; in the backward pass the other way round."""

    @staticmethod
    def forward(
        ctx: Any, tape: Tape, step: int, level: int, token: Tensor, alpha: Tensor | None, *parameters: Tensor
    ) -> Tensor:
        ctx.tape, ctx.step, ctx.level = tape, step, level
        ctx.save_for_backward(*parameters, *(() if alpha is None else (alpha,)))
        value, ctx.kept = tape.plan.passes[step][level].first_pass(*tape.neighbours(step, level))
        tape.advance(level, value, alpha)
        return token.clone()

    @staticmethod
    def backward(ctx: Any, *token: Tensor) -> tuple[Tensor | None, ...]:
        tape, step, level = ctx.tape, ctx.step, ctx.level
        saved = ctx.saved_tensors  # raises where one was changed in place since
        alpha = saved[-1] if step >= tape.plan.first_alpha else None
        tape.begin_piece(step, level)
        found = tape.plan.passes[step][level].second_pass(
            *tape.seen_neighbours(step, level),
            tape.adjoint(level),
            ctx.kept,
            *tape.neighbour_adjoints(step, level),
            tape.state_to_invert(step, level),
        )
        grads = tape.collect(step, level, found)
        del found
        alpha_grad = None
        if alpha is not None:
            previous, adjoint = tape.retreat(step, level, alpha), tape.adjoint(level)
            if ctx.needs_input_grad[4]:
                alpha_grad = (adjoint * previous).sum_to_size(alpha.shape).to(alpha.dtype)
            adjoint.mul_(alpha)
        tape.end_piece(step, level)
        return (None, None, None, token[0], alpha_grad, *grads)


class _End(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tape: Tape, token: Tensor) -> tuple[Tensor, ...]:
        ctx.tape = tape
        ctx.set_materialize_grads(False)
        last = () if tape.plan.once else tuple(tape.states)
        ctx.save_for_backward(token, *last)
        if last:
            tape.states = []
        return (*last, *(tape.readouts[place][1].detach() for place in range(len(tape.readouts))))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        token, *last = ctx.saved_tensors
        ctx.tape.start_backward(last, grads)
        return None, torch.zeros_like(token)


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
