"""The order of imports is checked, and the check can fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent


def lint(folder: Path) -> "subprocess.CompletedProcess[str]":
    """import-linter's command on the package below ``folder / "src"``, with the project's contracts."""
    command = "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", command, "--config", str(ROOT / "pyproject.toml"), "--no-cache"], cwd=folder,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_imports_run_downwards(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_nothing_imports_the_root():
    """The root's names are loaded late, so that an import of it would lead upwards unseen by the contracts."""
    graph = grimp.build_graph("trevsnn", exclude_type_checking_imports=True, cache_dir=None)
    assert graph.find_modules_that_directly_import("trevsnn") == set()
    assert graph.find_modules_directly_imported_by("trevsnn") == {"trevsnn.version"}


@pytest.mark.parametrize(
    ("module", "upward"),
    [
        ("reversible/tape.py", "trevsnn.network.spike"),
        ("network/hub.py", "trevsnn.run.checkpoint"),
        ("train/evaluate.py", "trevsnn.deploy.engines"),
        ("data/sets.py", "trevsnn.network.config"),
        ("data/events/frames.py", "trevsnn.data.pictures.folders"),
    ],
)
def test_an_upward_import_is_found(copy, module, upward):
    file = copy / "src" / "trevsnn" / module
    file.write_text(f"{file.read_text()}\n\ndef late():\n    import {upward}\n")
    done = lint(copy)
    assert done.returncode == 1
    assert upward in done.stdout
