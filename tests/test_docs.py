"""What the README and the pages of docs/ show runs as it stands, and their links lead somewhere.

Python blocks of a page are run in order, in one namespace. :mod:`test_start_pages` runs the commands of the first pages, too.
"""

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.distributed.run import get_args_parser

from command_line import commands as parsers
from command_line import options
from doc_pages import DOCS, PAGES, ROOT, anchors, blocks, commands, lines, links, mentioned, prose, read
from event_files import some_events, write_nmnist
from helpers import folder_config, folder_of_pictures, shard_config
from trevsnn.cli.main import build_parser
from trevsnn.data.sets import load
from trevsnn.zoo.presets import pretrained_folder


def run(page: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a page's Python blocks in order and return their names."""
    names = {} if names is None else names
    for block in blocks(page, "python"):
        exec(compile(block.text, page, "exec"), names)
    return names


def test_the_readme_prints_classes(capsys):
    run("README.md")
    assert re.fullmatch(r"tensor\(\[(\d, ){7}\d\]\)\n", capsys.readouterr().out)


def test_the_readme_is_short_and_has_one_picture():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 120
    assert text.count("![") == 1


RECURRENCES = [
    pytest.param(block.text, id=f"{page.removesuffix('.md')}-{i}")
    for page in ("own-modules.md", "own-neurons.md")
    for i, block in enumerate(blocks(f"docs/do/{page}", "python"))
    if "backprop=" in block.text
]


def test_there_are_examples_of_modules_readouts_neurons_codes_and_links():
    assert len(RECURRENCES) == 5


@pytest.mark.parametrize("block", RECURRENCES)
def test_examples_of_the_recurrence_have_the_gradients_of_autograd(block):
    results = []
    for mode in ("exact", "autograd"):
        torch.manual_seed(0)
        names: dict[str, Any] = {}
        assert block.count('backprop="exact"') == 1
        exec(compile(block.replace('backprop="exact"', f'backprop="{mode}"'), "own-modules.md", "exec"), names)
        modules = [m for value in names.values() for m in (value if isinstance(value, list) else [value])]
        parameters = dict.fromkeys(p for m in modules if isinstance(m, torch.nn.Module) for p in m.parameters())
        results.append([p.grad for p in parameters])
        assert parameters
    for ours, reference in zip(*results, strict=True):
        assert ours is None if reference is None else (ours - reference).norm() <= 1e-4 * reference.norm()
    alive = [grad is not None and bool(grad.any()) for grad in results[1]]
    assert sum(alive) >= 0.9 * len(alive)  # what is above the top level has no gradient


def test_the_backbone_in_the_guide_prints_what_stands_there(capsys):
    run("docs/do/backbone.md")
    assert capsys.readouterr().out == "".join(block.text for block in blocks("docs/do/backbone.md", "text"))


def test_the_fine_tuning_in_the_guide_trains_what_is_not_frozen():
    names = run("docs/do/fine-tune.md")
    model, optimizer = names["model"], names["optimizer"]
    before = {name: value.clone() for name, value in model.named_parameters()}
    model(torch.randn(8, 3, 8, 8), all_heads=True)[-1].square().sum().backward()
    optimizer.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert "heads.3.classifier2.weight" in moved
    assert not any(name.startswith(("encoder.", "levels.0.", "levels.1.")) for name in moved)


def test_the_network_of_lif_neurons_in_the_guide_runs():
    names = run("docs/do/lif-networks.md")
    assert names["logits_TBK"].shape == (8, 32, 10)
    assert all(p.grad is not None for p in names["net"].parameters())


def test_the_streams_in_the_guide_end_with_the_logits_of_the_clip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_nmnist(tmp_path / "00045.bin", some_events(500))
    names = run("docs/do/stream.md")
    assert torch.equal(names["logits"], names["model"](names["frames"].transpose(0, 1)))
    assert torch.equal(names["over_time"], names["run"].model(names["clip_BTCHW"]).softmax(1))


def test_the_export_in_the_guide_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pretrained_folder("digits"), "digits-exported")
    assert run("docs/do/deploy.md")["model"].config.num_classes == 10


def test_the_shards_written_in_the_guide_hold_the_folder_s_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder_of_pictures(tmp_path / "pictures", ("train", "val"), n=3)
    run("docs/do/shards.md")
    for split in ("train", "val"):
        written = load(shard_config(tmp_path / "shards"), split, 1)
        folder = load(folder_config(tmp_path / "pictures"), split, 1)
        assert written.about == folder.about
        pairs = [{(part.read(i).tobytes(), int(part.labels_N[i])) for i in range(6)} for part in (written, folder)]
        assert pairs[0] == pairs[1]
        assert len(pairs[0]) == 6
        assert written.labels_N.tolist() != folder.labels_N.tolist()


def test_pictures_are_sorted_by_a_table_as_programs_write_them(tmp_path, monkeypatch):
    """With a mark of UTF-8, ends of lines of Windows, a comma in a name, and no end of the last line."""
    monkeypatch.chdir(tmp_path)
    for name in ("a, b.png", "c.png"):
        (tmp_path / name).write_text(name)
    (tmp_path / "labels.csv").write_bytes('\ufefffile,label\r\n"a, b.png",cat\r\nc.png,stork'.encode())
    run("docs/start/own-pictures.md")
    copied = {file.relative_to("pictures").as_posix(): file.read_text() for file in Path("pictures").rglob("*.png")}
    assert copied == {"cat/a, b.png": "a, b.png", "stork/c.png": "c.png"}


def test_the_recording_read_in_the_guide_is_counted_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_nmnist(tmp_path / "00045.bin", some_events(500))
    names = run("docs/do/look-at-recordings.md")
    assert names["frames_TCHW"].sum() == 500
    assert np.array_equal(names["events"], some_events(500))


@pytest.mark.parametrize("page", PAGES)
def test_what_is_installed_and_launched_is_there(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in lines(page):
        named = [name for found in re.findall(r"\.\[([a-z,]+)\]", line) for name in found.split(",")]
        assert set(named) <= set(extras), line
        for folder in re.findall(r"pip install (\.[\w./]*)", line):
            assert (ROOT / folder / "pyproject.toml").is_file(), line
        for given in re.findall(r"\btorchrun (.*\btrevsnn train\b)", line):
            launched = get_args_parser().parse_args(shlex.split(given))
            assert (launched.module, launched.training_script) == (True, "trevsnn"), line


#: Pages that a test above runs, with what they need, or one beside the subject's (test_nirtorch.py).
RUN_ABOVE = {
    "README.md", "docs/do/own-modules.md", "docs/do/backbone.md", "docs/do/fine-tune.md",
    "docs/do/lif-networks.md", "docs/do/stream.md", "docs/do/deploy.md", "docs/do/shards.md", "docs/do/look-at-recordings.md",
    "docs/start/own-pictures.md", "docs/do/nir.md",
}  # fmt: skip
OTHERS = [page for page in PAGES if page not in RUN_ABOVE and blocks(page, "python")]


@pytest.mark.parametrize("page", OTHERS)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page)


@pytest.fixture(scope="module")
def parser():
    return build_parser()


COMMANDS = {command: page for page in PAGES for command in commands(page)}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command, parser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for config in map(Path, re.findall(r"--config (\S+)", command)):
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text("epochs: 7\n")
    given = parser.parse_args(shlex.split(command)[1:])
    assert given.command == shlex.split(command)[1]
    if "--config" in command:
        assert given.train.epochs == 7


def test_there_are_commands_of_every_kind():
    assert {command.split()[1] for command in COMMANDS} == {
        "train", "evaluate", "predict", "export", "stream", "measure", "data",
    }  # fmt: skip
    assert sum("--recipe imagenet-tiny" in command for command in COMMANDS) == 4


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_name_options_that_there_are(page, parser):
    known = {
        name: {word for action in options(own) for word in action.option_strings}
        for name, own in parsers(parser, "trevsnn")
    }
    for command in mentioned(page):
        (name, *_) = [name for name in known if f"{command} ".startswith(f"{name} ")] or [" ".join(command.split()[:2])]
        taken = known.get(name) or set().union(*(words for other, words in known.items() if other.startswith(name)))
        assert taken, command
        assert {word.partition("=")[0] for word in command.split() if word.startswith("--")} <= {*taken, "--help"}, (
            command
        )


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in links(page):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (PAGES[page].parent / file).resolve() if file else PAGES[page]
        assert path.exists(), target
        assert page == "README.md" or path.is_relative_to(DOCS), f"{target} is no part of the site"
        if anchor:
            assert anchor in anchors(path.relative_to(ROOT).as_posix()), target


def test_files_of_the_root_link_to_pages_of_the_site():
    assert {"../do/backbone.md", "contributing.md#versions", "citation.md"} <= set(links("docs/about/changelog.md"))


def test_the_bibtex_entry_has_what_citation_cff_has():
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    (entry,) = blocks("docs/about/citation.md", "bibtex")
    text = " ".join(re.sub("[{}]", "", entry.text).split())
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    given = [authors, paper["title"], f"{paper['start']}--{paper['end']}", *map(str, (paper["year"], paper["volume"]))]
    assert [value for value in [*given, paper["url"], paper["collection-title"]] if f"= {value}" not in text] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    named = re.findall(r"`((?:src|tests|benchmarks|examples|docs)/[\w/.-]+\.\w+)`", prose(page))
    named += re.findall(
        r"python ((?:benchmarks|examples)/\w+\.py)", "".join(block.text for block in blocks(page, "bash"))
    )
    for file in named:
        assert (ROOT / file).is_file(), file


def test_the_notebooks_in_the_navigation_are_those_that_there_are():
    named = set(re.findall(r"notebooks/([\w-]+\.ipynb)", (ROOT / "mkdocs.yml").read_text()))
    assert named == {path.name for path in (DOCS / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("notebook", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_links_of_notebooks_lead_somewhere(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    for target in re.findall(
        r"\]\((?!https://)([^)\s]+)\)", "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    ):
        file, _, anchor = target.partition("#")
        path = (notebook.parent / file).resolve()
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.relative_to(ROOT).as_posix()), target


def test_the_layers_in_the_guide_are_those_that_are_checked():
    """The picture has the contract's layers from the top down, and every folder of the package."""
    (picture,) = blocks("docs/learn/code.md", "text")
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    drawn = [line.split()[0] for line in picture.text.splitlines() if re.match(r"\w+ ", line)]
    assert drawn == contract["layers"][: len(drawn)]
    folders = {path.parent.name for path in (ROOT / "src" / "trevsnn").glob("*/__init__.py")}
    assert folders == {*drawn, "data"}


def test_the_faults_name_tests_that_exist():
    table = read("docs/faults.md")
    for file, start in re.findall(r"`(test_\w+\.py)::(test_\w+?)_?\.\.\.", table):
        assert f"def {start}" in next(Path(ROOT / "tests").rglob(file)).read_text(), (file, start)
    assert len(re.findall(r"::test_", table)) >= 14
