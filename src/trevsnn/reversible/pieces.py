"""The recurrence as a chain of pieces, one for each state, with a backward pass of its own.

The equations, and the names used for their terms, stand in :mod:`trevsnn.reversible`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trevsnn.reversible.compiling import hidden_from_compiler
from trevsnn.reversible.memory_owner import owner
from trevsnn.reversible.plan import Alpha, Plan, Readout
from trevsnn.reversible.precision import Precision
from trevsnn.reversible.replay import refuse_function_transforms, refuse_second_derivatives
from trevsnn.reversible.tape import Tape


@hidden_from_compiler
def run_pieces(plan: Plan) -> tuple[list[Tensor], list[Tensor]]:
    """:func:`trevsnn.reversible.run` in the modes that have their own backward pass, which a compiler is not to look into.

    The graph is a chain of pieces, (0,0), (0,1), ..., (T-1,L-1), between a beginning and an end. What runs along it is
    an empty token; states and adjoints lie on the tape, where they are changed in place. Each piece hands the gradients
    of its own parameters to autograd as soon as it is through. Readouts branch off after their timestep, so that their
    gradients are there when the backward pass comes to it.
    """
    refuse_function_transforms()
    tape, given = Tape(plan), dict[int, Tensor]()
    token = _Begin.apply(tape, *plan.distinct_inputs, *(plan.initial or ()))
    with Precision.current(plan.inputs[0].device).context():
        for t in range(plan.timesteps):
            with owner("states"):
                for level in range(plan.levels):
                    token = _Piece.apply(tape, t, level, token, plan.alpha(t, level), *plan.parameters[t][level])
                tape.end_timestep(t)
            with owner("heads"):
                for place, readout in enumerate(plan.readouts):
                    if readout.timestep == t:
                        state = _Reading.apply(tape, t, readout, token)
                        value = readout.read(state)
                        # The tape's own memory changes in the backward pass.
                        given[place] = value.clone() if _share_memory(value, state) else value
    outputs = _End.apply(tape, token, *(given[place] for place in range(len(plan.readouts))))
    levels = 0 if plan.once else plan.levels
    return list(outputs[:levels]), list(outputs[levels:])


def _share_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage()._cdata == b.untyped_storage()._cdata


class _Begin(torch.autograd.Function):
    """Where the inputs and the initial states come in, and their gradients go out."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, *tensors: Tensor) -> Tensor:
        ctx.tape = tape
        ctx.save_for_backward(*tensors)
        return torch.empty(0, device=tensors[0].device)

    @staticmethod
    @hidden_from_compiler
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        """dL/dx[t] and dL/dc[l,-1], complete now that every piece has been gone back through."""
        refuse_second_derivatives()
        grads = ctx.tape.adjoints.final()
        return (None, *(g if g is None else g.to(x.dtype) for g, x in zip(grads, ctx.saved_tensors, strict=True)))


class _Piece(torch.autograd.Function):
    """One state, ``c[l,t] = alpha[l,t] c[l,t-1] + F[l,t](...)``, and its adjoint."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, t: int, level: int, token: Tensor, alpha: Alpha, *parameters: Tensor) -> Tensor:
        ctx.tape, ctx.t, ctx.level = tape, t, level
        arguments = tape.arguments(t, level, token)
        # Inputs, too: autograd then raises where one was changed in place, even if nobody asks for its gradient.
        given = [x.detach() for x in tape.given(t, level)]
        ctx.save_for_backward(*parameters, *given, *([alpha] if isinstance(alpha, Tensor) else []))
        value, ctx.second_pass = tape.plan.transforms[t][level].first_pass(*arguments)
        tape.advance(level, value, alpha, begins=t < tape.plan.first_alpha)
        return token.clone()

    @staticmethod
    @hidden_from_compiler
    def backward(ctx: Any, *token: Tensor) -> tuple[Tensor | None, ...]:
        """With y[l,t] complete on the tape::

        y[i,t], y[j,t-1], dL/dtheta  += (dF[l,t]/d...)^T y[l,t]          (the transform's second pass)
        c[l,t-1]       = (c[l,t] - F[l,t]) / alpha[l,t]
        dL/dalpha[l,t] = sum y[l,t] c[l,t-1]        over the axes along which alpha is broadcast
        y[l,t-1]       = alpha[l,t] y[l,t] + (dF[l,t]/dc[l,t-1])^T y[l,t]      the first terms; other transforms still add
        """
        refuse_second_derivatives()
        tape, t, level = ctx.tape, ctx.t, ctx.level
        saved = ctx.saved_tensors  # raises where one was changed in place since
        alpha = tape.plan.alpha(t, level)
        alpha = saved[-1] if isinstance(alpha, Tensor) else alpha
        adjoints = tape.adjoints
        if level == tape.plan.levels - 1:
            adjoints.add_readouts(t, tape.states)
        if tape.plan.constant[level]:
            tape.end_piece(t, level)
            return (None, None, None, token[0], None)
        gradients = ctx.second_pass(tape.seen(t, level), adjoints.of(level), tape.state_to_invert(t, level))
        if tape.plan.once:
            ctx.second_pass = None  # and what it keeps
        grads = adjoints.collect(t, level, gradients)
        del gradients
        alpha_grad = None
        if t >= tape.plan.first_alpha:
            previous = tape.retreat(t, level, alpha)
            if isinstance(alpha, Tensor) and ctx.needs_input_grad[4]:
                alpha_grad = (adjoints.of(level) * previous).sum_to_size(alpha.shape).to(alpha.dtype)
            adjoints.step_back(level, alpha)
        tape.end_piece(t, level)
        return (None, None, None, token[0], alpha_grad, *grads)


class _Reading(torch.autograd.Function):
    """Where c[l,t], or what is seen of it, is given out to be read, and the gradient of what was read comes in."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, t: int, readout: Readout, token: Tensor) -> Tensor:
        ctx.tape, ctx.t, ctx.level = tape, t, readout.level
        ctx.save_for_backward(token)
        state, view = tape.state(readout.level).detach(), tape.plan.views[readout.level]
        ctx.view = view if readout.seen else None
        ctx.code = tape.code(t, readout.level) if ctx.view is not None else None
        return state if ctx.view is None else ctx.view(state)

    @staticmethod
    @hidden_from_compiler
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """A term of y[l,t], which waits on the tape for timestep t."""
        refuse_second_derivatives()
        (token,) = ctx.saved_tensors
        if not ctx.tape.plan.constant[ctx.level]:
            grad, view = (grads[0], ctx.view) if ctx.code is None else (ctx.code.pull_back(grads[0]), None)
            ctx.tape.adjoints.keep_readout(ctx.t, ctx.level, grad, view)
        return None, None, None, torch.zeros_like(token)


class _End(torch.autograd.Function):
    """Where the last states and the readouts are given out, and the gradients of the states come in.

    Readouts pass through, so that the backward pass begins here, whichever of them a loss is made of.
    """

    @staticmethod
    def forward(ctx: Any, tape: Tape, token: Tensor, *readouts: Tensor) -> tuple[Tensor, ...]:
        ctx.tape = tape
        ctx.set_materialize_grads(False)
        last = tape.end_forward()
        if tape.plan.once:
            ctx.save_for_backward(token)
            last = []
        else:
            ctx.save_for_backward(token, *tape.states)
            tape.states = []
        return (*last, *(value.detach() for value in readouts))

    @staticmethod
    @hidden_from_compiler
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Begin with y[l,T-1] = dL/dc[l,T-1]; readouts add theirs at their own timestep."""
        refuse_second_derivatives()
        token, *last = ctx.saved_tensors
        ctx.tape.start_backward(last, grads[: len(last)])
        return None, torch.zeros_like(token), *grads[len(last) :]
