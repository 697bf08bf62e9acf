"""The reference of the site has every public name, every field of a config, every command and option, as Markdown."""

import re
from dataclasses import fields
from importlib import import_module
from pkgutil import walk_packages

import griffe
import pytest

import trevsnn
from command_line import all_commands
from command_line import commands as parsers
from doc_pages import DOCS, ROOT
from docstrings import MarkdownDocstrings
from trevsnn.cli.main import build_parser
from trevsnn.data.config import DataConfig
from trevsnn.network.config import TRevSNNConfig
from trevsnn.run.config import RunConfig
from trevsnn.run.optim_config import OptimConfig

DOCUMENTED = re.findall(
    r"^::: (\S+)", "\n".join(path.read_text() for path in (DOCS / "reference").glob("*.md")), re.MULTILINE
)
PACKAGES = ("trevsnn", "trevsnn.reversible", "trevsnn.neurons", "trevsnn.zoo", "trevsnn.data")


@pytest.fixture(scope="module")
def package():
    extensions = griffe.Extensions(MarkdownDocstrings())
    options = {"warn_unknown_params": False, "warn_missing_types": False}
    return griffe.load(
        "trevsnn",
        search_paths=[ROOT / "src"],
        extensions=extensions,
        docstring_parser="google",
        docstring_options=options,
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
    inner = {  # what Replay's passes hand each other, and what fold makes its network of
        "trevsnn.reversible.replay.Evidence", "trevsnn.reversible.circumstances.Circumstances",
        "trevsnn.deploy.folded.FoldedLevel", "trevsnn.deploy.folded.FoldedHead",
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
