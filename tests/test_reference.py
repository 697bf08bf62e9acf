"""The reference of the site has every public name, every field of a config, every command and option, as Markdown."""

import ast
import re
from contextlib import suppress
from dataclasses import fields
from importlib import import_module
from pkgutil import walk_packages

import griffe
import nbformat
import pytest
import torch
import yaml
from safetensors.torch import load_file

import trevsnn
from command_line import all_commands
from command_line import commands as parsers
from doc_pages import DOCS, PAGES, ROOT, blocks, prose
from docstrings import ERRORS, MarkdownDocstrings
from trevsnn.cli.main import build_parser
from trevsnn.data.config import DataConfig
from trevsnn.network.config import TRevSNNConfig
from trevsnn.run.config import RunConfig
from trevsnn.run.optim_config import OptimConfig

DOCUMENTED = re.findall(
    r"^::: (\S+)", "\n".join(path.read_text() for path in (DOCS / "reference").glob("*.md")), re.MULTILINE
)
PACKAGES = ("trevsnn", "trevsnn.reversible", "trevsnn.neurons", "trevsnn.zoo", "trevsnn.data", "trevsnn.errors")


def _options():
    """What mkdocs.yml tells mkdocstrings."""
    settings = (ROOT / "mkdocs.yml").read_text().replace("!relative ", "")
    (plugin,) = (p["mkdocstrings"] for p in yaml.safe_load(settings)["plugins"] if "mkdocstrings" in p)
    return plugin["handlers"]["python"]["options"]


OPTIONS = _options()


@pytest.fixture(scope="module")
def package():
    extensions = griffe.Extensions(MarkdownDocstrings())
    return griffe.load(
        "trevsnn",
        search_paths=[ROOT / "src"],
        extensions=extensions,
        docstring_parser="google",
        docstring_options=OPTIONS["docstring_options"],
    )


def test_every_public_name_is_documented_once():
    public = {f"{name}.{member}" for name in PACKAGES for member in import_module(name).__all__}
    shown_elsewhere = {"trevsnn.ReversibilityError"}  # as trevsnn.reversible.ReversibilityError
    assert public - shown_elsewhere <= set(DOCUMENTED)
    assert len(DOCUMENTED) == len(set(DOCUMENTED))
    others = {
        name
        for _, name, is_package in walk_packages(trevsnn.__path__, "trevsnn.")
        if is_package and name not in PACKAGES
    }
    assert not [name for name in others if hasattr(import_module(name), "__all__")]


def test_types_in_signatures_are_documented(package):
    inner = {  # what Replay's passes hand each other, what fold makes its network of, and a tracker's record
        "trevsnn.reversible.replay.Evidence", "trevsnn.reversible.circumstances.Circumstances",
        "trevsnn.deploy.folded.FoldedLevel", "trevsnn.deploy.folded.FoldedHead",
        "trevsnn.measure.tracker.Change",
    }  # fmt: skip
    objects = [package[name.removeprefix("trevsnn.")] for name in DOCUMENTED]
    shown = {obj.canonical_path for obj in objects}
    members = [member for obj in objects if obj.is_class for member in obj.members.values() if member.is_public]
    named = {path for obj in [*objects, *members] for path in _types(obj)}
    assert {"trevsnn.sizes.Size", "trevsnn.network.rates.FiringRates", "trevsnn.data.part.About"} <= named
    assert named - shown - inner == set()


def _types(obj):
    """Paths of the types of trevsnn that stand in the signature of a function, or as the type of an attribute."""
    annotations = [getattr(obj, "annotation", None), getattr(obj, "returns", None)]
    annotations += [parameter.annotation for parameter in getattr(obj, "parameters", ())]
    for annotation in annotations:
        for part in annotation.iterate(flat=True) if isinstance(annotation, griffe.Expr) else ():
            if isinstance(part, griffe.ExprName) and part.canonical_path.startswith("trevsnn."):
                yield obj.modules_collection[part.canonical_path].canonical_path


def test_named_tuples_have_a_signature(package):
    readout = package["reversible.Readout"].parameters
    assert [(field.name, field.default and str(field.default)) for field in readout][1:] == [
        ("timestep", None), ("function", None), ("level", "-1"), ("seen", "False"),
    ]  # fmt: skip
    assert "the top level. Default: ``-1``." in package["reversible.Readout"].docstring.value


def test_each_has_a_docstring(package):
    assert [name for name in DOCUMENTED if package[name.removeprefix("trevsnn.")].docstring is None] == []


@pytest.mark.parametrize("config", [RunConfig, OptimConfig, DataConfig, TRevSNNConfig])
def test_every_field_of_a_config_is_described(config, package):
    parsed = package[f"{config.__module__}.{config.__name__}".removeprefix("trevsnn.")].docstring.parsed
    (attributes,) = [section for section in parsed if section.kind is griffe.DocstringSectionKind.attributes]
    described = {name for attribute in attributes.value for name in attribute.name.split(", ")}
    assert {field.name for field in fields(config)} <= described


def test_no_markup_of_docstrings_is_left(package):
    documented = [package[name.removeprefix("trevsnn.")] for name in DOCUMENTED]
    shown = [*documented, *(member for obj in documented if obj.is_class for member in obj.members.values())]
    texts = [obj.docstring.value for obj in shown if obj.docstring is not None]
    assert len(texts) > 100
    left = re.compile(r":(?:mod|class|func|meth):`|^=+ +=|::$", re.MULTILINE)
    assert [text for text in texts if left.search(text)] == []


def test_docstrings_are_markdown(package):
    module = package["neurons"].docstring.value
    assert (
        '| ``spike`` | <autoref optional identifier="trevsnn.neurons.spike.Spike"><code>Spike</code></autoref>, with a'
        in module
    )
    assert "```text\nc[l,t-1] = (c[l,t] - F[l,t](...)) / alpha[l,t]\n```" in package["reversible"].docstring.value
    assert "F[l,t]\\(o[i,t] for i in lower" in package["reversible.sees.Sees"].docstring.value
    assert (
        "    timesteps: T, the number of sub-networks. Default: ``4``.\n"
        in package["network.config.TRevSNNConfig"].docstring.value
    )
    assert package["neurons.lif.ABOUT_ONE"].docstring.value


def test_docstrings_lead_to_what_is_documented(package):
    """And can be understood without the names of what only appears inside; modules say how things are done."""
    shown = [*_shown(package)]
    anchors = {path for obj in shown for path in (obj.path, obj.canonical_path)}
    anchors.add("trevsnn.network.backbone.Backbone.group_matcher")  # which TRevSNN inherits
    texts = [(obj, section) for obj in shown for section in obj.docstring.parsed]
    led = {(obj.path, name) for obj in shown for name in re.findall(r'identifier="([^"]+)"', obj.docstring.value)}
    targets = {(where, package[name.removeprefix("trevsnn.")]) for where, name in led}
    assert [
        (where, obj.path) for where, obj in targets if not obj.is_module and obj.canonical_path not in anchors
    ] == []
    raised = [
        (obj.path, item.annotation.canonical_path)
        for obj, section in texts
        if section.kind is griffe.DocstringSectionKind.raises
        for item in section.value
        if str(item.annotation) in ERRORS
    ]
    assert len(raised) > 20
    assert [(where, path) for where, path in raised if path not in anchors] == []  # what links to nothing


def test_what_is_returned_is_one_item_and_fields_have_each_their_text(package):
    kinds = griffe.DocstringSectionKind
    for obj in _shown(package):
        for section in obj.docstring.parsed:
            if section.kind in (kinds.returns, kinds.yields):
                (item,) = section.value
                assert str(item.annotation) in str(obj.annotation or obj.returns), obj.path  # no word of the text
            if section.kind is kinds.attributes:
                said = [item.description for item in section.value]
                assert len(said) == len(set(said)), obj.path


def _shown(package):
    """What is documented, and the members that are shown with it, as far as they have a docstring."""
    documented = [package[name.removeprefix("trevsnn.")] for name in DOCUMENTED]
    members = [member for obj in documented if obj.is_class for member in obj.members.values()]
    for obj in [*documented, *members]:
        if obj.docstring is not None and not any(
            re.search(rule.removeprefix("!"), obj.name) for rule in OPTIONS["filters"]
        ):
            yield obj


def test_every_member_of_a_protocol_is_shown(package):
    shown = {obj.canonical_path for obj in _shown(package)}
    assert {f"trevsnn.reversible.two_pass.{name}" for name in ("Code.__getitem__", "View.__call__")} <= shown
    assert "trevsnn.neurons.spike.PackedState.__getitem__" in shown


def test_colons_alone_before_a_block_are_no_paragraph(package):
    text = package["reversible.SecondPass"].members["__call__"].docstring.value
    assert "through it.\n\n```text\ny[i,t]" in text


@pytest.mark.filterwarnings("ignore:the weights hold no BatchNorm statistics")
def test_examples_in_docstrings_run(package, tmp_path, monkeypatch):
    """Those of a class first and then its methods', one after the other, in a folder with the file that one reads."""
    monkeypatch.chdir(tmp_path)
    golden = load_file(ROOT / "tests/golden/image_k3_t4.safetensors")
    weights = {name.removeprefix("weight/"): tensor for name, tensor in golden.items() if name.startswith("weight/")}
    torch.save(weights, "published.pth")
    run = []
    for name in DOCUMENTED:
        obj, variables = package[name.removeprefix("trevsnn.")], {}
        for part in [obj, *(obj.members.values() if obj.is_class else ())]:
            for example in re.findall(
                r"^```python\n(.*?)^```", part.docstring.value if part.docstring else "", re.M | re.S
            ):
                exec(example, variables)
                run.append(part.name)
    assert set(run) == {"from_published", "SpikingNetwork", "read"}


def test_the_page_of_commands_has_what_help_lists():
    page = "\n\n".join(all_commands())
    assert re.findall(r"^## (.*)", page, re.MULTILINE) == [name for name, _ in parsers(build_parser(), "trevsnn")]
    sections = dict(zip(*[iter(re.split(r"^## (.*)\n", page, flags=re.MULTILINE)[1:])] * 2, strict=True))
    for name, parser in parsers(build_parser(), "trevsnn"):
        listed = set(re.findall(r"^  (?:-\w, )?(--[\w.]+)", parser.format_help(), re.MULTILINE)) - {"--help"}
        shown = set(re.findall(r"(?:^\| |^\| `.*`, )`(--[\w.]+)`", sections[name], re.MULTILINE))
        assert {option for option in listed if not option.endswith(".help")} <= shown, name
        assert "configuration file." not in sections[name]  # of what?
        assert all(row.count(" | ") == 2 for row in sections[name].splitlines() if row.startswith("| `"))


def test_pages_and_notebooks_call_what_is_documented(package):
    named = dict(_named(package))
    assert {"trevsnn.train.train.train", "trevsnn.deploy.play.play", "trevsnn.neurons.LIF"} <= named.keys()
    documented = {package[name.removeprefix("trevsnn.")].canonical_path for name in DOCUMENTED}
    assert {name: page for name, page in named.items() if package[name[8:]].canonical_path not in documented} == {}


def _named(package):
    """Functions and classes that pages and notebooks import or name, by their dotted names, and where."""
    pages = {page: (prose(page), [block.text for block in blocks(page, "python")]) for page in PAGES}
    for path in (DOCS / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        pages[path.name] = ("\n".join(c.source for c in cells), [c.source for c in cells if c.cell_type == "code"])
    for page, (text, programs) in pages.items():
        names = {name for program in programs for name in _imported(program)}
        for name in names | set(re.findall(r"(?<![\w./-])trevsnn(?:\.[A-Za-z]\w*)+", "\n".join([text, *programs]))):
            with suppress(KeyError):  # a module's attribute, or a file
                if not (obj := package[name.removeprefix("trevsnn.")]).is_module and not obj.is_attribute:
                    yield name, page


def _imported(program):
    lines = re.sub(r"^ *[%!].*$", "", program, flags=re.MULTILINE)  # a notebook's own
    for node in ast.walk(ast.parse(lines)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trevsnn"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
