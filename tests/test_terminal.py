"""Names stand on the terminal as they are."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from trevsnn.cli.main import main
from trevsnn.terminal import Terminal, say, visible

NAMES = ["scan [copy]", "q[/b]", "[bold]x", ":smile:", "\x1b]0;owned\x07\x1b[2J", "caf\udce9", "\u202egnp.x", "a\\[b]"]


def printed(thing: object, console: type[Console] = Terminal) -> str:
    out = io.StringIO()
    console(file=out, width=200).print(thing)
    return out.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stands_in_lines_tables_titles_and_bars(name):
    table = Table("file", visible("x"), title=f"run {name}")
    table.add_row(name, name)
    shown = visible(name)
    assert printed(f"skipped {name}") == f"skipped {shown}\n"
    assert printed(table).count(shown) == 3
    out = io.StringIO()
    say(Console(file=out, width=20), f"a console of the user's: {name}")
    assert out.getvalue() == f"a console of the user's: {shown}\n"


def test_what_is_visible():
    assert visible("\x1b[31mred\x07 caf\udce9 \u202e\x9b") == r"\x1b[31mred\x07 caf\udce9 \u202e\x9b"
    assert visible("tab\tline\nGröße 日本 🦊") == r"tab\tline\nGröße 日本 🦊"
    assert visible("ca\u200bt\ufeff a\u2028b \u2067x \U000e0041") == r"ca\u200bt\ufeff a\u2028b \u2067x \U000e0041"


@settings(max_examples=40)
@given(st.text())
def test_nothing_that_is_visible_commands_a_terminal_and_the_rest_is_left(text):
    shown = visible(text)
    shown.encode()
    assert all(ord(c) >= 32 and not 127 <= ord(c) < 160 for c in shown)
    assert visible(shown) == shown
    assert text.isascii() is False or not text.isprintable() or shown == text


def test_errors_obey_no_name_either(capsys):
    assert main(["evaluate", "\x1b[2Jrun[/b]"]) == 1
    assert capsys.readouterr().err.startswith(r"trevsnn: error: \x1b[2Jrun[/b] is no run")
