"""The errors that a user can do something about: each is one sentence on what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["Interrupted", "MistakesError", "RunError", "UnreadableError", "UsageError"]


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first of some names for a sentence, and how many more there are: "a, b and 3 more"."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


class UsageError(Exception):
    """The call is wrong: an option, a config, a name, or a library that is not installed. The command line exits with 2."""


class MistakesError(UsageError):
    """Several mistakes of one call, each a sentence, a line each.

    Args:
        sentences: one at least.
    """

    def __init__(self, sentences: Sequence[str]) -> None:
        self.sentences = list(sentences)
        super().__init__("\n".join(self.sentences))


class RunError(Exception):
    """The call is right but a file is missing or damaged, a disk is full, or the like. The command line exits with 1."""


class UnreadableError(RunError):
    """A picture or a recording cannot be read: it is missing, damaged, or of another kind. Training can skip such an item
    (``data.on_unreadable``)."""


class Interrupted(KeyboardInterrupt):
    """A training was asked to end, by Ctrl-C (SIGINT) or SIGTERM. The command line exits with 130 or 143.

    Args:
        sentence: what was saved, and how to go on.
        number: of the signal.
        run: the run's folder; None before there is one.
        step: the training step that was saved last; 0 where none was.
    """

    def __init__(self, sentence: str, number: int, run: Path | None, step: int) -> None:
        super().__init__(sentence)
        self.number, self.run, self.step = number, run, step
