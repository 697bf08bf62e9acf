"""Whether the arguments of a run fit together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from trevsnn.backprop import BACKPROP_MODES
from trevsnn.checks import choice
from trevsnn.reversible.constant import check_constant_levels
from trevsnn.reversible.plan import Readout
from trevsnn.reversible.sees import Sees, check_sees
from trevsnn.reversible.two_pass import TwoPass, View


def check_arguments(
    transforms: Sequence[Sequence[Any]],
    alphas: Sequence[Sequence[Any] | None],
    inputs: Sequence[Any],
    states: Sequence[Any] | None,
    sees: Sequence[Sees] | None,
    views: Sequence[Any] | None,
    backprop: str,
    readouts: Sequence[Any],
) -> None:
    """Raise ValueError or TypeError, in one sentence, for what :func:`trevsnn.reversible.run` cannot run."""
    choice("backprop", backprop, BACKPROP_MODES)
    _check_rows("transforms", transforms)
    timesteps, lengths = len(transforms), {len(row) for row in transforms}
    if timesteps == 0 or len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"transforms must be T rows of L modules each; got {timesteps} rows of lengths {sorted(lengths)}."
        )
    (levels,) = lengths
    for t, row in enumerate(transforms):
        for level, f in enumerate(row):
            _check_transform(f"transforms[{t}][{level}]", f)
    _check_rows("alphas", alphas, timesteps)
    for t, row in enumerate(alphas):
        if row is not None:
            _check_sequence(f"alphas[{t}]", row, levels, "levels")
        for level, alpha in enumerate(row or ()):
            if not isinstance(alpha, Tensor | int | float | None):
                raise TypeError(f"alphas[{t}][{level}] is a {type(alpha).__name__}; give a tensor, a number or None.")
    for name, given, count, what in (("inputs", inputs, timesteps, "timesteps"), ("states", states, levels, "levels")):
        if given is None and name == "states":
            continue
        _check_sequence(name, given, count, what)
        for place, tensor in enumerate(given or ()):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name}[{place}] is a {type(tensor).__name__}; give a tensor.")
    check_constant_levels(transforms, alphas, states)
    if views is not None:
        _check_sequence("views", views, levels, "levels")
    for level, view in enumerate(views or ()):
        if isinstance(view, nn.Module) and any(p.requires_grad for p in view.parameters()):
            raise ValueError(
                f"views[{level}] has parameters to train, which would get no gradient: freeze them, or look at the state in "
                "the modules."
            )
        if view is not None and not isinstance(view, View):
            raise TypeError(
                f"views[{level}] is a {type(view).__name__}, which has no method 'code': give a neuron, such as Spike(), "
                "or None."
            )
    if sees is not None:
        _check_sequence("sees", sees, levels, "levels")
        check_sees(sees)
    if backprop == "reversible" and (own := [level for level, s in enumerate(sees or ()) if s.own]):
        raise ValueError(
            f"level {own[0]} sees its own earlier state, so that backprop='reversible' cannot rebuild that from the later "
            "one: use backprop='exact'."
        )
    for t, function, level, _ in (Readout(*readout) for readout in readouts):
        if not isinstance(t, int) or not callable(function):
            raise TypeError(f"a readout is ({t!r}, {function!r}); give a timestep and a function of the state.")
        if not 0 <= t < timesteps:
            raise ValueError(f"a readout is at timestep {t}; it must lie in 0..{timesteps - 1}.")
        if not -levels <= level < levels:
            raise ValueError(
                f"a readout is of level {level}; it must lie in 0..{levels - 1}, or be -1 for the top one."
            )


def _check_rows(name: str, rows: Any, timesteps: int | None = None) -> None:
    _check_sequence(name, rows, timesteps, "timesteps")
    for t, row in enumerate(rows):
        if row is not None and (
            isinstance(row, Tensor) or not isinstance(row, Sequence | nn.ModuleList | nn.ParameterList)
        ):
            raise TypeError(
                f"{name}[{t}] is a {type(row).__name__}; give for each timestep a list with an entry for each level."
            )


def _check_sequence(name: str, given: Any, count: int | None, what: str) -> None:
    if isinstance(given, Tensor):
        raise TypeError(
            f"{name} is one tensor; give a list with an entry for each of the {what}, such as list({name}.unbind(0))."
        )
    if not isinstance(given, Sequence | nn.ModuleList | nn.ParameterList):
        raise TypeError(f"{name} is a {type(given).__name__}; give a list with an entry for each of the {what}.")
    if count is not None and len(given) != count:
        raise ValueError(f"{name} has {len(given)} entries for {count} {what}: give one for each.")


def _check_transform(name: str, f: object) -> None:
    if not isinstance(f, nn.Module | TwoPass):
        raise TypeError(
            f"{name} is a {type(f).__name__}; give a torch.nn.Module, or Replay(function, *modules) of a function and the "
            "modules it uses."
        )
    if isinstance(f, nn.Module) and any(isinstance(part, torch.jit.ScriptModule) for part in f.modules()):
        raise TypeError(
            f"{name} is, or holds, a module of torch.jit, which cannot be replayed: give the module it was made of."
        )
    if isinstance(f, nn.Module) and any(map(is_lazy, (*f.parameters(), *f.buffers()))):
        raise ValueError(f"{name} has parameters without a shape yet: run it once before.")
