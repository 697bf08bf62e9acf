"""Writing to the terminal what users, files and other people's runs call things, letter by letter.

Rich takes square brackets for markup and ``:name:`` for a picture; a terminal takes control characters for commands. A name
may hold all of these.
"""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.text import Text

# Control characters but for line feeds and tabs, characters that turn the direction of writing, and halves of characters,
# which Python makes of bytes that are no UTF-8 and cannot print.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


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

    def render_str(self, text: str, **options: Any) -> Text:
        """As Rich's."""
        return super().render_str(visible(text), **options)


def say(console: Console, text: str) -> None:
    """Print a line on a console of any kind, as it is and unwrapped."""
    console.print(Text(visible(text)), soft_wrap=True)
