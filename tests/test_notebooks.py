"""The notebooks run as they stand, without a warning, and print what is committed."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    """What a cell prints or gives as text, beside its pictures."""
    streams = [output.text for output in cell.outputs if output.output_type == "stream"]
    return "".join([*streams, *(o.data["text/plain"] for o in cell.outputs if o.output_type == "execute_result")])


def pictures(cell: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def test_runs_and_prints_what_is_committed(path, tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):  # a person's own settings and history
        monkeypatch.setenv(name, str(tmp_path / name))
    committed, notebook = (nbformat.read(path, as_version=4) for _ in range(2))
    where = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where)
    client.execute()  # an error in a cell is one here, with the cell's code
    for ours, cell in zip(code_cells(committed), code_cells(notebook), strict=True):
        assert [output.text for output in cell.outputs if output.get("name") == "stderr"] == []
        assert pictures(cell) == pictures(ours)
        if "varies" not in cell.metadata.get("tags", []):  # by the processor, as what is trained does
            assert printed(cell) == printed(ours)


def test_what_is_committed_is_whole_and_small(path):
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=4)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # run once, from above to below
    assert sum(map(pictures, cells)) >= 2
    assert any(printed(cell) for cell in cells)
    assert len(text) < 150_000
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in cells:
        assert "execution" not in cell.metadata  # times of day
        assert all(output.get("name") != "stderr" for output in cell.outputs)
        assert not re.search(r"/home/|/root/|/tmp/|/work/|/Users/|site-packages|\b20\d\d-\d\d-\d\d\b", printed(cell))
