"""What notebooks link to has its address on the site."""

import logging

import pytest
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from notebook_links import on_page_content


@pytest.fixture
def shown_on_site():
    """Content of the page notebooks/first.ipynb, or of another one, as the site has it."""
    names = ["notebooks/first.ipynb", "notebooks/second.ipynb", "learn/how-it-works.md"]
    files = {name: File(name, "docs", "site", use_directory_urls=False) for name in names}
    for name in names[:2]:  # as mkdocs-jupyter has it
        files[name].dest_uri = files[name].url = name.replace(".ipynb", ".html")
    config = MkDocsConfig()

    def show(html, name=names[0]):
        return on_page_content(html, page=Page(None, files[name], config), config=config, files=Files(files.values()))

    return show


def test_pages_and_notebooks(shown_on_site, caplog):
    html = '<a href="../learn/how-it-works.md#alpha">a</a> <a href="second.ipynb">b</a>'
    assert shown_on_site(html) == '<a href="../learn/how-it-works.html#alpha">a</a> <a href="second.html">b</a>'
    assert not caplog.records


def test_what_is_elsewhere_stays(shown_on_site):
    html = (
        '<a href="https://example.org/a.md">a</a> <a href="#b.md">b</a> <a href="/c.md">c</a> <a href="../../d/">d</a>'
    )
    assert shown_on_site(html) == html


def test_a_page_in_markdown_stays(shown_on_site):
    html = '<a href="../notebooks/first.ipynb">a</a>'
    assert shown_on_site(html, "learn/how-it-works.md") == html


def test_a_link_to_nothing_is_a_warning(shown_on_site, caplog):
    html = '<a href="../learn/gone.md">a</a>'
    with caplog.at_level(logging.WARNING):
        assert shown_on_site(html) == html
    assert caplog.messages == ["notebooks/first.ipynb links to learn/gone.md, which is not there"]
