"""What a card says of names that somebody else chose."""

import json
import shutil
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from trevsnn.cli.main import main
from trevsnn.data.part import About
from trevsnn.deploy.card import model_card, plain_text
from trevsnn.run.config import recipe_config
from trevsnn.terminal import visible
from trevsnn.zoo.presets import pretrained_folder

MARKUP = [
    "<script>alert(1)</script>", "[x](javascript:alert(1))", "![x](http://evil/p.png)", "`code`", "**bold**", "a|b", "\n---\nx: 1\n---\n",
    "$x$", "&lt;b&gt;", "https://evil.org",
]  # fmt: skip


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags = "", list[str]()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def rendered(markdown: str) -> _Text:
    page = _Text()
    page.feed(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(markdown))
    return page


@pytest.mark.parametrize("name", MARKUP)
def test_a_name_stands_in_markdown_for_itself(name):
    page = rendered(f"classes (a{plain_text(name)}z).")
    assert page.text.strip() == f"classes (a{visible(name)}z)."
    assert page.tags == ["p"]


@given(st.text(max_size=20))
def test_any_name_does(name):
    page = rendered(f"(a{plain_text(name)}z)")
    assert (page.text.strip(), page.tags) == (f"(a{visible(name)}z)", ["p"])


def test_a_card_shows_names_as_texts():
    report = {
        "checkpoint": "step-000000001", "compact": False, "comparisons": [], "items": "pictures", "real_items": True,
        "spikes": {"items": 0, "all": 1, "largest_without": 0.0},
    }  # fmt: skip
    card = model_card(recipe_config("digits"), About(tuple(MARKUP), 1, (0.0,), (1.0,)), report, {}, "pictures")
    assert not {"script", "img", "a", "b", "strong"} & set(rendered(card).tags)
    assert r"\<script\>alert\(1\)\</script\>" in card
    assert card.count("\n---\n") == 1


@pytest.mark.parametrize(
    "change",
    [{"checkpoint": "<b>"}, {"figures": {"epochs": "<b>", "firing_rates": []}}, {"figures": {"firing_rates": ["x"]}}],
)
def test_figures_of_a_sent_export_are_numbers(tmp_path, change):
    sent = shutil.copytree(pretrained_folder("digits"), tmp_path / "sent")
    about = json.loads((sent / "about.json").read_text())
    (sent / "about.json").write_text(json.dumps(about | change))
    assert main(["export", str(sent), "--out", str(tmp_path / "out"), "--formats"]) == 1
    assert not (tmp_path / "out").exists()
