"""Live tensor storage, counted as it comes and goes, by the part of the network it belongs to."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trevsnn.owner import PARTS, Part, current_owner


class LiveStorage(TorchDispatchMode):
    """Counts the bytes of all storages made while it is active, until each is freed.

    It sees what PyTorch allocates for tensors on every device, real or fake; not what a library's kernel takes for
    itself while it runs. Memory of ``known`` tensors (parameters, buffers) is left out.

    Attributes:
        live: bytes alive now, by part.
        peak: most bytes ever alive at a time.
        at_peak: bytes by part at that moment.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live: dict[Part, int] = dict.fromkeys(PARTS, 0)
        self.peak = 0
        self.at_peak: dict[Part, int] = dict(self.live)
        self._total = 0
        self._seen: dict[int, weakref.ref[Any]] = {}
        for tensor in known:
            self._remember(tensor, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._remember(leaf, current_owner())
        return out

    def add(self, tensor: Tensor, part: Part) -> None:
        """Count a tensor made elsewhere."""
        self._remember(tensor, part)

    @property
    def total(self) -> int:
        """Bytes alive now."""
        return self._total

    def _remember(self, tensor: Tensor, part: Part | None) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen and self._seen[key]() is not None:
            return
        nbytes = 0 if part is None else storage.nbytes()

        def freed(_: object) -> None:
            if part is not None:
                self.live[part] -= nbytes
                self._total -= nbytes

        self._seen[key] = weakref.ref(storage, freed)
        if part is None:
            return
        self.live[part] += nbytes
        self._total += nbytes
        if self._total > self.peak:
            self.peak, self.at_peak = self._total, dict(self.live)
