"""Files from the root of the repository as pages of the site, in place of ``<!-- file: NAME -->``. A hook of MkDocs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FILE = re.compile(r"^<!-- file: (\S+) -->$", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
#: Where the files are on the site: pages of one folder beside those of docs/.
PAGES = {
    "CHANGELOG.md": "changelog.md", "CITATION.cff": "citation.md", "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "licence.md", "SECURITY.md": "security.md",
}  # fmt: skip


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with the files that it shows; what they link to is where the site has it."""
    return FILE.sub(lambda shown: LINK.sub(_address, (ROOT / shown[1]).read_text().rstrip()), markdown)


def _address(link: re.Match[str]) -> str:
    """Of what a file of the root links to, from a page beside those of :data:`PAGES`; what is no page of the site stays as it is."""
    return f"../{link[1].removeprefix('docs/')}" if link[1].startswith("docs/") else PAGES.get(link[1], link[1])
