"""Who the memory allocated at this moment belongs to: labels for ``trevsnn measure memory``, at no cost otherwise."""

from __future__ import annotations

from typing import Literal, get_args

Part = Literal["states", "codes", "anchors", "adjoints", "encoder", "blocks", "heads", "parameter gradients", "other"]
PARTS: tuple[Part, ...] = get_args(Part)

_stack: list[Part] = ["other"]


class owner:  # noqa: N801 - used as a statement
    """Within ``with owner(part):`` new storages count as ``part``'s; the innermost one counts."""

    def __init__(self, part: Part) -> None:
        self.part: Part = part

    def __enter__(self) -> None:
        _stack.append(self.part)

    def __exit__(self, *_: object) -> None:
        _stack.pop()


def current_owner() -> Part:
    """The part that a storage made now belongs to."""
    return _stack[-1]
