"""Bytes of live tensor storages, by the part of the network that they belong to."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trevsnn.reversible.memory_owner import OWNERS, Owner, close_ledger, current_owner, open_ledger

#: Bytes of live tensors by the part of the network that they belong to.
Bytes = dict[Owner, int]


class Change(NamedTuple):
    """A storage was made (positive bytes) or freed (negative), or changed its part (one of each)."""

    storage: int
    nbytes: int
    part: Owner


class LiveStorage(TorchDispatchMode):
    """Records the bytes of all storages made while it is active, until each is freed.

    It sees what PyTorch allocates for tensors on every device, real or fake, but not the workspace that a library's
    kernel allocates for itself.

    Args:
        known: tensors whose memory is left out: parameters and buffers.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.changes: list[Change] = []
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._parts: dict[int, Owner] = {}
        for tensor in known:
            storage = tensor.untyped_storage()
            self._alive[storage._cdata] = weakref.ref(storage), -1

    def __enter__(self) -> LiveStorage:
        open_ledger(self)
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        close_ledger(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf, current_owner())
        return out

    def add(self, tensor: Tensor, part: Owner) -> None:
        """Count a tensor's storage as ``part``'s, unless it is counted already."""
        if tensor.device.type == "meta":  # which says how many bytes it would have
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive and self._alive[key][0]() is not None:
            return
        number, nbytes = len(self.changes), storage.nbytes()
        self._parts[number] = part

        def freed(_: object) -> None:
            self.changes.append(Change(number, -nbytes, self._parts[number]))

        self._alive[key] = weakref.ref(storage, freed), number
        self.changes.append(Change(number, nbytes, part))

    def move(self, tensor: Tensor, part: Owner) -> None:
        """Count a tensor's storage as ``part``'s from now on."""
        storage = tensor.untyped_storage()
        number = self._alive[storage._cdata][1]
        self.changes.append(Change(number, -storage.nbytes(), self._parts[number]))
        self.changes.append(Change(number, storage.nbytes(), part))
        self._parts[number] = part

    def live(self, *, without: Iterable[Tensor] = ()) -> Bytes:
        """Bytes alive now, by part, leaving out some tensors' storages."""
        return self._replay(without)[0]

    def peak(self, *, without: Iterable[Tensor] = (), gradients: Iterable[Tensor] = ()) -> Bytes:
        """Bytes by part at the moment when most were alive, leaving out some tensors' storages, and counting those of
        ``gradients`` as "parameter gradients" from when they were made."""
        return self._replay(without, gradients)[1]

    def _replay(self, without: Iterable[Tensor], gradients: Iterable[Tensor] = ()) -> tuple[Bytes, Bytes]:
        left_out, made = self._numbers(without), self._numbers(gradients)
        live: Bytes = dict.fromkeys(OWNERS, 0)
        peak, most, total = dict(live), 0, 0
        for storage, nbytes, part in self.changes:
            if storage in left_out:
                continue
            live["parameter gradients" if storage in made else part] += nbytes
            total += nbytes
            if total > most:
                most, peak = total, dict(live)
        return live, peak

    def _numbers(self, tensors: Iterable[Tensor]) -> set[int]:
        return {self._alive.get(tensor.untyped_storage()._cdata, (None, -1))[1] for tensor in tensors}
