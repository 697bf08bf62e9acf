"""The recurrence in plain torch operations, and as a chain of pieces with a backward pass of its own.

The equations, and the names used for their terms, stand in :mod:`trevsnn.reversible`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trevsnn.backprop import BACKPROP_MODES, Backprop
from trevsnn.checks import choice
from trevsnn.reversible.inversion import read_alpha
from trevsnn.reversible.memory_owner import owner
from trevsnn.reversible.plan import Plan, Readout, alpha_row
from trevsnn.reversible.precision import Precision
from trevsnn.reversible.replay import Replay
from trevsnn.reversible.tape import Tape
from trevsnn.reversible.two_pass import Code, TwoPass


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
    for t, (row, x) in enumerate(zip(transforms, inputs, strict=True)):
        previous = current
        current = []
        below = x
        for level, transform in enumerate(row):
            above = previous[level + 1] if previous is not None and level + 1 < len(row) else None
            state = transform(below, above)
            if previous is not None:
                state = alpha_row(alphas, t)[level] * previous[level] + state
            current.append(state)
            below = state
        yield current


def run(
    transforms: Sequence[Sequence[nn.Module | TwoPass]],
    alphas: Sequence[Sequence[Tensor] | None],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor] | None = None,
    *,
    backprop: Backprop = "exact",
    code: Callable[[Tensor], Code] | None = None,
    readouts: Sequence[Readout] = (),
    once: bool = False,
    read_alpha: Callable[[Tensor], NDArray[np.float64]] = read_alpha,
) -> tuple[list[Tensor], list[Tensor]]:
    """Run the recurrence of :func:`unroll` and return the last states, with a choice of what backward keeps.

    ``autograd`` keeps the plain graph: the reference. ``reversible`` keeps the inputs and the last states and nothing
    that grows with T. ``exact`` keeps besides the code of every state, and a float anchor where inversion would lose
    too much: every transform is recomputed on exactly what it saw, so that no spike can differ, and inverted states
    serve alpha's gradient alone.

    Of modules, buffers (batch statistics) change in the forward pass only, and random state and autocast are replayed. A
    module gets gradients for its inputs and its own parameters, not for other tensors it may use, and has to keep no
    state outside its buffers: ``autograd`` has neither limit.

    Args:
        transforms, alphas, inputs, states: see :func:`unroll`. A transform is any module, replayed under autograd in
            the backward pass (:class:`trevsnn.reversible.Replay`), or an object with two passes of its own
            (:class:`trevsnn.reversible.TwoPass`). Transforms may share modules and parameters.
        backprop: what the backward pass rests on.
        code: for ``exact``, a state's code, where no transform sees more of a state than its code keeps, such as
            :func:`trevsnn.network.spike.pack` for transforms that see states through their spikes alone. None keeps
            the states themselves, which is right for transforms of any kind.
        readouts: ``(t, function)`` of the top level's state after timestep t. The function must have no parameters:
            apply those to the value it gives. What autograd keeps for the function stays alive until the backward pass;
            the state does not, unless the function keeps it.
        once: promise that the backward pass runs once and that the last states are not wanted: none are returned, and
            backward overwrites and frees what it has used. Without it, backward may run again with ``retain_graph``.
        read_alpha: gives the numbers of an alpha, float64; for alphas whose tensors hold none.

    Returns:
        The last states ``c[l,T-1]`` (none with ``once``) and the values of the readouts.

    Raises:
        ReversibilityError: in the backward pass, before it begins: ``reversible`` with a T and alpha for which its
            error bound fails, which is for an F that sees its inputs through spikes. (The forward pass is not affected.)
        ValueError: lengths that do not fit together, or an unknown mode.
    """
    _check(transforms, alphas, inputs, states, backprop, readouts)
    if backprop != "autograd" and torch.is_grad_enabled():
        plan = Plan(
            transforms=[[Replay(f) if isinstance(f, nn.Module) else f for f in row] for row in transforms],
            alphas=alphas, inputs=inputs, initial=states, exact=backprop == "exact", code=code, readouts=readouts,
            once=once, read_alpha=read_alpha,
        )  # fmt: skip
        return _run_pieces(plan)  # type: ignore[call-arg]
    given: list[Any] = [None] * len(readouts)
    last: list[Tensor] = []
    for t, last in enumerate(unroll(transforms, alphas, inputs, states)):
        for place, (at, function) in enumerate(readouts):
            if at == t:
                given[place] = function(last[-1])
    return [] if once else last, given


@torch.compiler.disable
def _run_pieces(plan: Plan) -> tuple[list[Tensor], list[Tensor]]:
    """:func:`run` in the modes that have their own backward pass, which a compiler is not to look into.

    The graph is a chain of pieces, (0,0), (0,1), ..., (T-1,L-1), between a beginning and an end. What runs along it is
    an empty token; states and adjoints lie on the tape, where they are changed in place. Each piece hands the gradients
    of its own parameters to autograd as soon as it is through.
    """
    tape = Tape(plan)
    token = _Begin.apply(tape, *plan.distinct_inputs, *(plan.initial or ()))
    with Precision.current(plan.inputs[0].device).context(), owner("states"):
        for t in range(plan.timesteps):
            for level in range(plan.levels):
                token = _Piece.apply(tape, t, level, token, plan.alpha(t, level), *plan.parameters[t][level])
            tape.end_timestep(t)
    outputs = _End.apply(tape, token)
    levels = 0 if plan.once else plan.levels
    return list(outputs[:levels]), list(outputs[levels:])


class _Begin(torch.autograd.Function):
    """Where the inputs and the initial states come in, and their gradients go out."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, *tensors: Tensor) -> Tensor:
        ctx.tape = tape
        ctx.save_for_backward(*tensors)
        return tensors[0].new_empty(0)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        """dL/dx[t] and dL/dc[l,-1], complete now that every piece has been gone back through."""
        grads = ctx.tape.adjoints.final()
        return (None, *(g if g is None else g.to(x.dtype) for g, x in zip(grads, ctx.saved_tensors, strict=True)))


class _Piece(torch.autograd.Function):
    """One state: ``c[l,t] = alpha[l,t] * c[l,t-1] + F[l,t](c[l-1,t], c[l+1,t-1])``, and its adjoint."""

    @staticmethod
    def forward(
        ctx: Any, tape: Tape, t: int, level: int, token: Tensor, alpha: Tensor | None, *parameters: Tensor
    ) -> Tensor:
        ctx.tape, ctx.t, ctx.level = tape, t, level
        ctx.save_for_backward(*parameters, *(() if alpha is None else (alpha,)))
        value, ctx.second_pass = tape.plan.transforms[t][level].first_pass(*tape.neighbours(t, level))
        tape.advance(level, value, alpha)
        return token.clone()

    @staticmethod
    def backward(ctx: Any, *token: Tensor) -> tuple[Tensor | None, ...]:
        """With y[l,t] complete on the tape::

        y[l-1,t], y[l+1,t-1], dL/dtheta   += (dF[l,t]/d...)^T y[l,t]          (the transform's second pass)
        c[l,t-1]       = (c[l,t] - F[l,t]) / alpha[l,t]
        dL/dalpha[l,t] = sum y[l,t] c[l,t-1]        over the axes along which alpha is broadcast
        y[l,t-1]       = alpha[l,t] y[l,t]      the first to reach it; F[l-1,t] and F[l+1,t-1] still add
        """
        tape, t, level = ctx.tape, ctx.t, ctx.level
        saved = ctx.saved_tensors  # raises where one was changed in place since
        alpha = saved[-1] if t >= tape.plan.first_alpha else None
        adjoints = tape.adjoints
        adjoints.add_readouts(t, level, tape.readouts)
        gradients = ctx.second_pass(*tape.seen(t, level), adjoints.of(level), tape.state_to_invert(t, level))
        grads = adjoints.collect(t, level, gradients)
        del gradients
        alpha_grad = None
        if alpha is not None:
            previous, adjoint = tape.retreat(t, level, alpha), adjoints.of(level)
            if ctx.needs_input_grad[4]:
                alpha_grad = (adjoint * previous).sum_to_size(alpha.shape).to(alpha.dtype)
            adjoint.mul_(alpha)
        tape.end_piece(t, level)
        return (None, None, None, token[0], alpha_grad, *grads)


class _End(torch.autograd.Function):
    """Where the last states and the readouts are given out, and their gradients come in."""

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
        """Begin with y[l,T-1] = dL/dc[l,T-1]; readouts add theirs at their own timestep."""
        token, *last = ctx.saved_tensors
        ctx.tape.start_backward(last, grads)
        return None, torch.zeros_like(token)


def _check(
    transforms: Sequence[Sequence[Any]],
    alphas: Sequence[Sequence[Tensor] | None],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor] | None,
    backprop: str,
    readouts: Sequence[Readout],
) -> None:
    choice("backprop", backprop, BACKPROP_MODES)
    timesteps, levels = len(transforms), {len(row) for row in transforms}
    if timesteps == 0 or len(levels) != 1 or levels == {0}:
        raise ValueError(
            f"transforms must be T rows of L modules each; got {timesteps} rows of lengths {sorted(levels)}."
        )
    for name, given in (("alphas", alphas), ("inputs", inputs)):
        if len(given) != timesteps:
            raise ValueError(f"{name} has {len(given)} entries for {timesteps} timesteps: give one for each.")
    if states is not None and {len(states)} != levels:
        raise ValueError(f"states has {len(states)} entries for {levels.pop()} levels: give one for each.")
    if any(not 0 <= t < timesteps for t, _ in readouts):
        raise ValueError(f"readouts are at timesteps {[t for t, _ in readouts]}; they must lie in 0..{timesteps - 1}.")
