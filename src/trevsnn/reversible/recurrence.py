"""The recurrence in plain torch operations, and with a choice of what its backward pass keeps.

The equations, and the names used for their terms, stand in :mod:`trevsnn.reversible`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trevsnn.backprop import Backprop
from trevsnn.reversible.arguments import check_arguments
from trevsnn.reversible.compiling import is_exporting
from trevsnn.reversible.constant import Constant
from trevsnn.reversible.inversion import read_alpha
from trevsnn.reversible.pieces import run_pieces
from trevsnn.reversible.plan import Alpha, Plan, Readout, alpha_row, is_zero
from trevsnn.reversible.replay import Replay
from trevsnn.reversible.sees import Sees, adjacent
from trevsnn.reversible.two_pass import TwoPass, View


def unroll(
    transforms: Sequence[Sequence[Callable[..., Tensor]]],
    alphas: Sequence[Sequence[Alpha] | None],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor] | None = None,
    sees: Sequence[Sees] | None = None,
) -> Iterator[list[Tensor]]:
    """Run the recurrence in plain torch operations::

        c[l,t] = alpha[l,t] c[l,t-1] + F[l,t](c[i,t] for i in lower(l), c[j,t-1] for j in upper(l), c[l,t-1] if own(l))

    Args:
        transforms: ``transforms[t][l]``, called with what level l sees, in the order of :class:`Sees`; None stands for a
            state of t-1 where there is no earlier state.
        alphas: ``alphas[t][l]``, a tensor that can be broadcast to the state, a number, or None for 1; ``alphas[t]`` is
            not read where there is no earlier state.
        inputs: ``x[t]``, one tensor for each timestep (the same one may stand at several).
        states: ``c[l,-1]``; None for a recurrence that starts from nothing.
        sees: of each level; None where each sees its neighbours: ``F(below, above)`` with c[l-1,t] or x[t], and c[l+1,t-1]
            or, at the top level, None.

    Yields:
        After each timestep the list of all L states.
    """
    current: list[Tensor] | None = None if states is None else list(states)
    for t, (row, x) in enumerate(zip(transforms, inputs, strict=True)):
        previous, current = current, []
        for level, (transform, seen) in enumerate(zip(row, sees or adjacent(len(row)), strict=True)):
            state = transform(*seen.arguments(level, x, current, previous))
            if previous is not None and not is_zero(alpha := alpha_row(alphas, t)[level]):
                state = (previous[level] if alpha is None else alpha * previous[level]) + state
            current.append(state)
        yield current


def run(
    transforms: Sequence[Sequence[nn.Module | TwoPass]],
    alphas: Sequence[Sequence[Alpha] | None],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor] | None = None,
    *,
    sees: Sequence[Sees] | None = None,
    views: Sequence[View | None] | None = None,
    backprop: Backprop = "exact",
    readouts: Sequence[Readout | tuple[int, Callable[[Tensor], Tensor]]] = (),
    once: bool = False,
    verify: bool = True,
    read_alpha: Callable[[Tensor], NDArray[np.float64]] = read_alpha,
) -> tuple[list[Tensor], list[Tensor]]:
    """Run the recurrence of :func:`unroll` and return the last states, with a choice of what backward keeps.

    ``autograd`` keeps the plain graph: the reference. ``reversible`` keeps the inputs and the last states, and no states of
    other timesteps. ``exact`` keeps the inputs and every state that is seen, its code where it has a view: every transform is
    recomputed on exactly what it saw, so that no spike can differ. Of a level with a view, float states are wanted for the
    gradients of its alphas alone; they are inverted, from a float anchor where inversion would lose too much.

    A module may be any that computes the same again from the same arguments, parameters, buffers, settings, autocast and
    random state: these are replayed, and buffers (batch statistics) change in the forward pass only. A module whose value is
    not the same again is found out. What a module hands out beside its value, such as an activation that a hook keeps for a
    loss, has no gradient.

    Args:
        transforms: T rows of L, ``transforms[t][l]``, lowest level first. A transform is any module, replayed under autograd in
            the backward pass (:class:`trevsnn.reversible.Replay`), or an object with two passes of its own
            (:class:`trevsnn.reversible.TwoPass`), such as a :class:`Replay` of a function. It gives one tensor, of the shape of its
            level's state. Transforms may share modules and parameters. Those of a level that is not trained are wrapped in
            :class:`trevsnn.reversible.Constant`.
        alphas: ``alphas[t][l]``: a tensor that broadcasts to the state, a number, or None for 1. Without initial states
            ``alphas[0]`` is not read, and may be None.
        inputs: x[t], T tensors of any shape and dtype; the same one may stand at several timesteps.
        states: c[l,-1], L tensors; None for none.
        sees: what the transforms of each level are given, L of them; None for the level below and the one above
            (:func:`trevsnn.reversible.adjacent`).
        views: of each level what modules see of its state, such as the spikes of a neuron; None for a state that is seen
            as it is. Modules are given g(c) in place of c; an object with two passes is given c, or its code, and has
            to look at it through g alone.
        backprop: what the backward pass rests on.
        readouts: functions of states, see :class:`Readout`; a plain tuple ``(t, function)`` reads the top level. What
            autograd keeps for a function stays alive until the backward pass; the state does not, unless the function
            keeps it.
        once: promise that the backward pass runs once and that the last states are not wanted: none are returned, and
            backward overwrites and frees what it has used. Without it, backward may run again with ``retain_graph``.
        verify: compare what each module computes in the backward pass with what it did in the forward pass; see
            :class:`Replay`.
        read_alpha: from an alpha's tensor to its numbers, a NumPy array, float64. The default reads the tensor; another is
            needed where tensors hold no numbers (PyTorch's ``FakeTensorMode``).

    Returns:
        The last states ``c[l,T-1]`` (an empty list with ``once``) and the values of the readouts, in their order.

    Raises:
        ValueError: arguments that do not fit together; ``reversible`` with a level that sees its own state; a level that changes
            its shape; a readout that changes the state in place.
        TypeError: an argument, or what a transform or a readout gives, is of another kind than is asked for.
        ReplayError: a module uses a tensor whose gradient would be lost; in the backward pass: it did not compute the same
            again. Its own gradient is not used then; modules of later timesteps may have theirs already.
        ReversibilityError: in the backward pass, before it begins: ``reversible`` with a T and alpha for which its
            error bound fails, which is for an F that sees its inputs through spikes. (The forward pass is not affected.)
        RuntimeError: inside a transform of ``torch.func``; in the backward pass: with ``create_graph=True``, a second time with
            ``once``, or something that it needs was changed in place since the forward pass.
    """
    check_arguments(transforms, alphas, inputs, states, sees, views, backprop, readouts)
    levels = len(transforms[0])
    sees, views = sees or adjacent(levels), views or [None] * levels
    readings = [Readout(*readout) for readout in readouts]  # type: ignore[arg-type]
    passes = _with_two_passes(transforms, sees, views, verify=verify)
    if backprop == "autograd" or not torch.is_grad_enabled() or is_exporting():
        return _run_plainly(passes, alphas, inputs, states, sees, views, readings, once=once)
    plan = Plan(  # of copies: the caller may change lists before the backward pass
        transforms=passes, alphas=[row if row is None else list(row) for row in alphas], inputs=list(inputs),
        initial=states if states is None else list(states), sees=sees, views=views,
        exact=backprop == "exact", readouts=[r._replace(level=r.level % levels) for r in readings], once=once,
        read_alpha=read_alpha,
    )  # fmt: skip
    return run_pieces(plan)  # type: ignore[call-arg]


def _with_two_passes(
    transforms: Sequence[Sequence[nn.Module | TwoPass]],
    sees: Sequence[Sees],
    views: Sequence[View | None],
    *,
    verify: bool,
) -> list[list[TwoPass]]:
    """The transforms, modules among them replayed and given what they are to see."""
    seen = [
        [None if i in (-1, len(sees)) else views[i] for i in (*lower, *upper, *([level] if own else ()))]
        for level, (lower, upper, own) in enumerate(sees)
    ]
    rows: list[list[TwoPass]] = []
    for t, row in enumerate(transforms):
        rows.append([])
        for level, f in enumerate(row):
            name = f"level {level} at timestep {t} ({type(f).__name__})"
            inner = f.transform if isinstance(f, Constant) else f
            replay: Any = Replay(inner) if isinstance(inner, nn.Module) else inner
            if isinstance(replay, Replay):
                replay = replay.for_run(seen[level], verify=verify, name=name)
            rows[t].append(Constant(replay) if isinstance(f, Constant) else replay)
    return rows


def _run_plainly(
    transforms: Sequence[Sequence[TwoPass]],
    alphas: Sequence[Sequence[Alpha] | None],
    inputs: Sequence[Tensor],
    states: Sequence[Tensor] | None,
    sees: Sequence[Sees],
    views: Sequence[View | None],
    readouts: Sequence[Readout],
    *,
    once: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    given: dict[int, Tensor] = {}
    last: list[Tensor] = []
    for t, last in enumerate(unroll(transforms, alphas, inputs, states, sees)):
        for place, readout in enumerate(readouts):
            if readout.timestep == t:
                state, view = last[readout.level], views[readout.level]
                given[place] = readout.read(view(state) if readout.seen and view is not None else state)
    return [] if once else last, [given[place] for place in range(len(readouts))]
