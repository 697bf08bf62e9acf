"""What modules leave in their attributes besides parameters and buffers: by it a module is found out that reads what an earlier
call left, where its value happens to be the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from trevsnn.reversible.checksum import Checksum

#: Where a module keeps what is restored for a second pass.
_KNOWN = ("_parameters", "_buffers", "_modules")

Place = tuple[nn.Module, str, object]


class Leftovers:
    """The tensors that a call left in attributes of some modules, or in dictionaries there, as SpikingJelly's neurons do.

    A tensor that is the same before and after the first pass is none: a mask that is kept, for one. One that is made anew in each
    pass, such as a weight that a hook normalises, has to come out the same.

    Args:
        modules: any number of them, before the first pass.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = list(dict.fromkeys(part for module in modules for part in module.modules()))
        self._before = {
            place: (id(tensor), tensor._version) for place, tensor in self._tensors() if not tensor.is_inference()
        }
        self._left: dict[Place, Checksum] = {}

    def note(self) -> None:
        """After the first pass: know again what it left."""
        self._left = {
            place: Checksum(tensor)
            for place, tensor in self._tensors()
            if not tensor.is_inference() and self._before.get(place) != (id(tensor), tensor._version)
        }
        self._before = {}

    def same(self) -> bool:
        """After the second pass: whether it left the same, bit for bit."""
        if not self._left:
            return True
        now = dict(self._tensors())
        return all(place in now and checksum.same(now[place]) for place, checksum in self._left.items())

    def _tensors(self) -> Iterator[tuple[Place, Tensor]]:
        for module in self._modules:
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    yield (module, name, None), value
                elif type(value) is dict and name not in _KNOWN:
                    for key, inner in value.items():
                        if isinstance(inner, Tensor):
                            yield (module, name, key), inner
