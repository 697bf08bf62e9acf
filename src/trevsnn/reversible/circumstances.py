"""What modules read besides their arguments, kept so that a second pass reads the same: parameters, buffers, training mode
and other settings, autocast and random state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trevsnn.reversible.precision import Precision

#: A buffer with more elements is not copied for each pass: it has to stay as it is until the backward pass.
LARGE_BUFFER = 2**16

_SETTINGS = (bool, int, float, str, type(None))


class _Contents(NamedTuple):
    """What one module holds: references, but for copies of its buffers; None for what is not to be touched."""

    module: nn.Module
    parameters: dict[str, Any]
    modules: dict[str, Any]
    buffers: dict[str, Any] | None
    settings: dict[str, Any] | None
    hooks: tuple[dict[int, Any], dict[int, Any]] | None

    @staticmethod
    def of(module: nn.Module, weights_only: bool) -> _Contents:
        if weights_only:
            return _Contents(module, dict(module._parameters), dict(module._modules), None, None, None)
        settings = {name: value for name, value in vars(module).items() if _is_setting(value)}
        hooks = dict(module._forward_pre_hooks), dict(module._forward_hooks)
        return _Contents(
            module, dict(module._parameters), dict(module._modules), dict(module._buffers), settings, hooks
        )  # fmt: skip

    def put_back(self) -> None:
        # Past __setattr__: a plain tensor may stand in for a parameter. Names that came since go.
        _refill(self.module._parameters, self.parameters)
        _refill(self.module._modules, self.modules)
        if self.buffers is not None:
            _refill(self.module._buffers, self.buffers)
        if self.hooks is not None:  # they make the weights of pruned modules, for one
            _refill(self.module._forward_pre_hooks, self.hooks[0])
            _refill(self.module._forward_hooks, self.hooks[1])
        if self.settings is not None:
            held = vars(self.module)
            for name in [name for name, value in held.items() if _is_setting(value) and name not in self.settings]:
                del held[name]
            held.update(self.settings)


def _is_setting(value: object) -> bool:
    """Whether it is a plain number, string or flag, or an unchangeable record of such, like a neuron."""
    return isinstance(value, _SETTINGS) or (is_dataclass(value) and type(value).__dataclass_params__.frozen)  # type: ignore[attr-defined]


def _dictionaries(module: nn.Module, weights_only: bool) -> list[dict[Any, Any]]:
    """In which a module keeps what it holds."""
    weights: list[dict[Any, Any]] = [module._parameters, module._modules]
    if weights_only:
        return weights
    return [*weights, module._buffers, module._forward_pre_hooks, module._forward_hooks, vars(module)]


def _refill(held: dict[Any, Any], wanted: Mapping[Any, Any]) -> None:
    held.clear()
    held.update(wanted)


class Circumstances:
    """What some modules, and theirs, hold now, and autocast on a device.

    Settings are attributes that are plain numbers, strings and flags, such as training mode, slopes and dropout rates.

    Args:
        device: whose autocast and random state count.
        modules: any number of them; a module that is there twice counts once.
        weights_only: keep parameters and submodules alone, for passes that take care of the rest. Otherwise buffers are
            copied, but for large ones (:data:`LARGE_BUFFER`): modules may change them.
    """

    def __init__(self, device: torch.device, *modules: nn.Module, weights_only: bool = False) -> None:
        self.precision = Precision.current(device)
        self.random: list[Tensor] | None = None  # where the first pass began, if it drew numbers
        distinct = dict.fromkeys(part for module in modules for part in module.modules())
        self._weights_only = weights_only
        self._contents = [_Contents.of(part, weights_only) for part in distinct]
        self._unchanged: list[tuple[Tensor, int]] = [
            (p, p._version) for c in self._contents for p in c.parameters.values() if p is not None and not p.is_inference()
        ]  # fmt: skip
        self._copied: set[tuple[int, str]] = set()
        for contents in self._contents:
            buffers = contents.buffers or {}
            for name, buffer in buffers.items():
                if buffer is not None and buffer.numel() <= LARGE_BUFFER:
                    buffers[name] = buffer.detach().clone()
                    self._copied.add((id(contents.module), name))
                elif buffer is not None and not buffer.is_inference():
                    self._unchanged.append((buffer, buffer._version))

    def parameters(self) -> list[Tensor]:
        """The modules' parameters, each once: those that were there, even if others stand in for them now."""
        return list(dict.fromkeys(p for c in self._contents for p in c.parameters.values() if p is not None))

    @contextlib.contextmanager
    def with_parameters(self, stand_ins: Mapping[Tensor, Tensor]) -> Iterator[None]:
        """Within it ``stand_ins`` are in place of the modules' parameters; nothing else is touched."""
        with self._weights_stay_where_they_are():
            try:
                for contents in self._contents:
                    contents.module._parameters.update(_replaced(contents.parameters, stand_ins))
                yield
            finally:
                for contents in self._contents:
                    contents.module._parameters.update(contents.parameters)

    @contextlib.contextmanager
    def restored(self, stand_ins: Mapping[Tensor, Tensor] | None = None) -> Iterator[None]:
        """Within it the modules hold what they held, ``stand_ins`` in place of their parameters, and buffers that may change.

        Raises:
            RuntimeError: a parameter or large buffer was changed in place since.
        """
        self.check_unchanged()
        present = [held for contents in self._contents for held in _dictionaries(contents.module, self._weights_only)]
        copies = [dict(held) for held in present]
        try:
            for contents in self._contents:
                buffers = contents.buffers and {
                    name: b.clone() if (id(contents.module), name) in self._copied else b
                    for name, b in contents.buffers.items()
                }
                parameters = _replaced(contents.parameters, stand_ins or {})
                contents._replace(parameters=parameters, buffers=buffers).put_back()
            with self._weights_stay_where_they_are():
                yield
        finally:
            for held, copy in zip(present, copies, strict=True):
                _refill(held, copy)

    @contextlib.contextmanager
    def _weights_stay_where_they_are(self) -> Iterator[None]:
        """Within it no recurrent layer moves its weights into one piece of memory, as on CUDA it does with those it has
        not seen before: stand-ins lie where the parameters do, and must not leave. Then it has its own list of them again.
        """
        cells = [contents.module for contents in self._contents if isinstance(contents.module, nn.RNNBase)]
        lists = [{name: vars(cell)[name] for name in ("_flat_weights", "_flat_weight_refs")} for cell in cells]
        for cell in cells:
            vars(cell)["flatten_parameters"] = lambda: None
        try:
            yield
        finally:
            for cell, own in zip(cells, lists, strict=True):
                vars(cell).pop("flatten_parameters", None)
                vars(cell).update(own)

    def check_unchanged(self, changer: str | None = None) -> None:
        """Raise RuntimeError where a parameter or a large buffer was changed in place: by a function of that name in its own
        forward pass, or by anybody since."""
        for tensor, version in self._unchanged:
            if tensor._version == version:
                continue
            if changer is not None:
                raise RuntimeError(
                    f"{changer} changes {self._name(tensor)} in its forward pass, so that it cannot run again as it did: keep "
                    f"buffers that change below {LARGE_BUFFER} elements, of which there are copies, or use backprop='autograd'."
                )
            raise RuntimeError(
                f"{self._name(tensor)} was modified by an inplace operation between the forward and the backward pass, "
                "which needs its old value: run backward before it changes."
            )

    def _name(self, tensor: Tensor) -> str:
        for module, parameters, _, buffers, *_ in self._contents:
            for kind, named in (("parameter", parameters), ("buffer", buffers or {})):
                for name, held in named.items():
                    if held is tensor:
                        return f"{kind} {name!r} {tuple(tensor.shape)} of a {type(module).__name__}"
        raise AssertionError("the tensor is one of the modules' own")


def _replaced(parameters: Mapping[str, Any], stand_ins: Mapping[Tensor, Tensor]) -> dict[str, Any]:
    return {name: p if p is None else stand_ins.get(p, p) for name, p in parameters.items()}


def random_states(device: torch.device) -> list[Tensor]:
    """The states of the CPU's random generator and, where it is another, the device's."""
    own = [] if device.type == "cpu" else [getattr(torch, device.type).get_rng_state(device)]
    return [torch.get_rng_state(), *own]


def _set_random_states(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        getattr(torch, device.type).set_rng_state(states[1], device)


@contextlib.contextmanager
def random_state(states: list[Tensor] | None, device: torch.device) -> Iterator[None]:
    """Run under the given random states, if any, and restore the present ones afterwards."""
    if states is None:
        yield
        return
    present = random_states(device)
    _set_random_states(states, device)
    try:
        yield
    finally:
        _set_random_states(present, device)
