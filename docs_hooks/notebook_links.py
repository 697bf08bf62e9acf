"""Links between notebooks and pages lead to the pages of the site, as MkDocs does it for pages in Markdown."""

from __future__ import annotations

import logging
import posixpath
import re
from typing import Any

log = logging.getLogger("mkdocs.hooks.notebook_links")

LINK = re.compile(r'href="(?![a-z]+:|#|/)([^"#]+\.(?:md|ipynb))(#[^"]*)?"')


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """The content of a page with the addresses of what it links to; a link to nothing is a warning, an error with ``--strict``."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def address(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), link[1]))
        file = files.get_file_from_path(target)
        if file is None:
            log.warning("%s links to %s, which is not there", page.file.src_uri, target)
            return link[0]
        return f'href="{file.url_relative_to(page.file)}{link[2] or ""}"'

    return LINK.sub(address, html)
