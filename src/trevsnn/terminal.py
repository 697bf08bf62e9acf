"""Writing to the terminal what users, files and other people's runs call things, letter by letter.

Rich takes square brackets for markup and ``:name:`` for a picture; a terminal takes control characters for commands. A name
may hold all of these.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

# Control characters, line ends among them; what has no width or turns the direction of writing, so that a name looks like another
# or a line like two; characters of tags; and halves of characters, which Python makes of bytes that are no UTF-8.
_COMMANDS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """A text whose control characters are spelled as Python spells them: the terminal shows them and obeys none."""
    return _COMMANDS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class Terminal(Console):
    """A console on which every text, in tables too, stands as it is: no markup, no highlights, and :func:`visible`.

    Args:
        options: of :class:`rich.console.Console`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Raise the error: nobody reads what is printed any more."""
        raise BrokenPipeError

    def render_str(self, text: str, **options: Any) -> Text:
        """As Rich's."""
        return super().render_str(visible(text), **options)


class TrainingTerminal(Terminal):
    """One on which a training goes on in silence when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        """As Rich's, but ending nothing."""
        self.quiet = True
        discard_output()


@contextmanager
def any_encoding() -> Iterator[None]:
    """A context in which what the output's encoding lacks is spelled as Python spells it, and is no error."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            stream.reconfigure(errors=errors)


def discard_output() -> None:
    """Send what is printed from now on, and what waits to be, nowhere: its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def say(console: Console, text: str) -> None:
    """Print a line on a console of any kind, as it is and unwrapped."""
    console.print(Text(visible(text)), soft_wrap=True)
