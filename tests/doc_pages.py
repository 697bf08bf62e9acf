"""The pages of the documentation and the README, as text: their code blocks, links, anchors and commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from markdown.extensions.toc import slugify, unique

from command_line import PLACE, all_commands
from root_files import on_page_markdown

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {path.relative_to(ROOT).as_posix(): path for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]}

_BLOCK = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_PROGRAM = r"python3?\s+((?:benchmarks|examples)/\w+\.py)"
_COMMAND = re.compile(r"(?<!-)\btrevsnn (?:train|evaluate|predict|export|stream|measure|data)\b[^#`|]*")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        language: as it stands after the fence; "" for none.
        text: without the fences.
    """

    language: str
    text: str


@cache
def read(page: str) -> str:
    """A page's text, with the files that it shows in place of the lines that name them."""
    text = on_page_markdown(PAGES[page].read_text())
    return re.sub(r'^--8<-- "([^":]+)(?::(\d+):)?"$', _shown, text, flags=re.MULTILINE)


def _shown(snippet: re.Match[str]) -> str:
    """A file of the repository, whole or from a line on."""
    return "".join((ROOT / snippet[1]).read_text().splitlines(keepends=True)[int(snippet[2] or 1) - 1 :])


def blocks(page: str, *languages: str) -> list[Block]:
    """Its blocks in these languages, but for those that show a file of the repository."""
    return [
        Block(language, dedent(text))
        for _, language, rest, text in _BLOCK.findall(read(page))
        if language in languages and "title=" not in rest
    ]


def prose(page: str) -> str:
    """The text outside of blocks."""
    return _BLOCK.sub("", read(page))


def links(page: str) -> list[str]:
    """Where its links and pictures lead."""
    return re.findall(r"\]\(([^)\s]+)[^)]*\)", re.sub(r"`[^`\n]*`", "", prose(page)))


@cache
def anchors(page: str) -> set[str]:
    """What can follow a # in a link to it: its headings, and the names that it documents."""
    text = prose(page)
    if PLACE in text:
        text = text.replace(PLACE, "\n\n".join(all_commands()))
    found: set[str] = set(re.findall(r"^::: (\S+)", text, re.MULTILINE))
    found |= set(re.findall(r'(?:id|name)="([^"]+)"', text))
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        unique(slugify(words, "-"), found)
    return found


def lines(page: str) -> list[str]:
    """The lines of its bash blocks, continued ones in one."""
    return "\n".join(block.text for block in blocks(page, "bash")).replace("\\\n", " ").splitlines()


def commands(page: str) -> list[str]:
    """The calls of trevsnn in its bash blocks, those under torchrun or srun too."""
    return [found[0].strip() for found in map(_COMMAND.search, lines(page)) if found]


def programs(page: str) -> Iterator[tuple[str, str]]:
    """The calls of benchmarks and examples in its bash blocks and sentences: the program, and what stands behind it."""
    in_blocks = [found for line in lines(page) for found in re.findall(rf"^[^#]*?{_PROGRAM}([^#|&]*)", line)]
    for name, line in [*in_blocks, *re.findall(rf"`{_PROGRAM}([^`]*)`", prose(page))]:
        yield name, " ".join(line.split())


def mentioned(page: str) -> Iterator[str]:
    """The calls of trevsnn in its sentences, which may leave out what is clear."""
    yield from re.findall(r"`(trevsnn (?:train|evaluate|predict|export|stream|measure|data)\b[^`]*)`", prose(page))
