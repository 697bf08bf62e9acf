"""Links of notebooks to pages and notebooks lead to the built pages, as those of other pages do.

A hook of MkDocs: mkdocs-jupyter leaves them alone.
"""

from __future__ import annotations

import re
from typing import Any

from mkdocs.structure.pages import Page

LINK = re.compile(r'href="(?!\w+:)([^"#]+)\.(?:md|ipynb)(#[^"]*)?"')


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Pages lie beside each other as their sources do: ``use_directory_urls`` is false."""
    return LINK.sub(r'href="\1.html\2"', output) if page.file.src_uri.endswith(".ipynb") else output
