"""Which part of the network the memory allocated now belongs to: labels for ``trevsnn measure memory``, at no cost otherwise."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

from torch import Tensor

#: Parts of a training step's memory: the inputs; states in float, their codes, float anchors of "exact" and what its ``keep`` keeps;
#: gradients of states on their way back; maps of the encoder, blocks and heads; and gradients of parameters, each with what it
#: needs beside them.
Owner = Literal[
    "input", "states", "codes", "anchors", "kept", "adjoints", "encoder", "blocks", "heads", "parameter gradients",
]  # fmt: skip
OWNERS: tuple[Owner, ...] = get_args(Owner)


class Ledger(Protocol):
    """Who is told of every change of owner (:class:`trevsnn.measure.tracker.LiveStorage`)."""

    def move(self, tensor: Tensor, part: Owner) -> None:
        """Count a tensor as ``part``'s from now on."""
        ...


_stack: list[Owner] = ["blocks"]
_ledgers: list[Ledger] = []


class owner:  # noqa: N801 - used as a statement
    """Within ``with owner(part):`` new storages count as ``part``'s; the innermost one counts."""

    def __init__(self, part: Owner) -> None:
        self.part: Owner = part

    def __enter__(self) -> None:
        _stack.append(self.part)

    def __exit__(self, *_: object) -> None:
        _stack.pop()


def current_owner() -> Owner:
    """The part that a storage made now belongs to."""
    return _stack[-1]


def open_ledger(ledger: Ledger) -> None:
    """Tell ``ledger`` from now on which tensors change hands."""
    _ledgers.append(ledger)


def close_ledger(ledger: Ledger) -> None:
    """Stop telling it."""
    _ledgers.remove(ledger)


def hand_over(tensor: Tensor, part: Owner) -> None:
    """A tensor made for one part is kept for another."""
    for ledger in _ledgers:
        ledger.move(tensor, part)
