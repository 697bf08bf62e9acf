"""What a release says in several places is the same in all."""

import tomllib
from pathlib import Path

import yaml

import trevsnn
from trevsnn.zoo.presets import APART

ROOT = Path(__file__).parent.parent


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == trevsnn.__version__
    assert f"## {trevsnn.__version__} - {citation['date-released']}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_networks_apart_have_the_library_s_licence_and_name_what_binds_further():
    project = tomllib.loads((ROOT / "networks" / "pyproject.toml").read_text())["project"]
    assert (ROOT / "networks" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert all((ROOT / "networks" / name).is_file() for name in project["license-files"])
    table = (ROOT / "networks" / "README.md").read_text()
    assert [name for name in APART if f"| `{name}` |" not in table] == []
    assert "dependencies" not in project  # data alone


def test_the_forms_for_issues_have_the_fields_that_github_asks_for():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").iterdir())
    assert len(forms) == 2
    for form in forms:
        plain = yaml.safe_load(form.read_text())
        assert plain["name"]
        assert plain["description"]
        assert [field["id"] for field in plain["body"] if field["type"] != "markdown"]
        assert all(field["attributes"].get("label") or field["attributes"].get("value") for field in plain["body"])


def test_the_page_of_installation_names_each_dependency_and_extra_with_its_lowest_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "index.md").read_text()
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *(line for name, lines in extras.items() if name != "dev" for line in lines)]
    assert [requirement for requirement in named if requirement not in page] == []
    assert [name for name in extras if f"| `{name}` |" not in page] == []
