"""What the README shows runs as it stands."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from trevsnn.cli.main import build_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_python_examples_run(capsys):
    assert len(blocks("python")) == 1
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert re.fullmatch(r"tensor\(\[(\d, ){7}\d\]\)\n", capsys.readouterr().out)


def test_the_example_of_one_s_own_modules_runs_and_has_the_gradients_of_autograd():
    (block,) = blocks("python", DOCS["how-it-works.md"])
    results = []
    for mode in ("exact", "autograd"):
        torch.manual_seed(0)
        names: dict[str, Any] = {}
        exec(compile(block.replace('"exact"', f'"{mode}"'), "how-it-works.md", "exec"), names)
        results.append([p.grad for row in names["transforms"] for cell in row for p in cell.parameters()])
        results[-1] += [alpha.grad for row in names["alphas"][1:] for alpha in row]
    for ours, reference in zip(*results, strict=True):
        assert reference is None or torch.allclose(ours, reference, rtol=1e-4, atol=1e-6)
    assert sum(grad is not None for grad in results[1]) == 60


def test_the_network_of_lif_neurons_in_the_guide_runs():
    (block,) = blocks("python", DOCS["lif-networks.md"])
    names: dict[str, Any] = {}
    exec(compile(block, "lif-networks.md", "exec"), names)
    assert names["logits_TBK"].shape == (8, 32, 10)
    assert all(p.grad is not None for p in names["net"].parameters())


def test_the_layers_in_the_guide_are_those_that_are_checked():
    """The picture has the contract's layers from the top down, and every folder of the package."""
    (picture,) = blocks("text", DOCS["how-it-works.md"])
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    drawn = [line.split()[0] for line in picture.splitlines() if re.match(r"\w+ ", line)]
    assert drawn == contract["layers"][: len(drawn)]
    folders = {path.parent.name for path in (ROOT / "src" / "trevsnn").glob("*/__init__.py")}
    assert folders == {*drawn, "data"}


def commands(text: str) -> list[str]:
    """The calls of trevsnn in a text's bash blocks, those under torchrun or srun too."""
    lines = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ").splitlines()
    found = (
        re.search(r"(?<!-)\btrevsnn (train|evaluate|predict|export|stream|measure|data)\b[^#]*", line) for line in lines
    )
    return [match[0] for match in found if match]


COMMANDS = [command for text in (README, *DOCS.values()) for command in commands(text)]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("epochs: 7\n")
    options = build_parser().parse_args(shlex.split(command)[1:])
    assert options.command == shlex.split(command)[1]
    if "--config" in command:
        assert (options.train.epochs, options.train.seed) == (7, 1)


def test_there_are_commands_of_every_kind():
    assert {command.split()[1] for command in COMMANDS} == {
        "train", "evaluate", "predict", "export", "stream", "measure", "data",
    }  # fmt: skip
    assert sum("--recipe imagenet-tiny" in command for command in COMMANDS) == 4


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{name}" for name in DOCS)])
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#\s]+)\)", (ROOT / name).read_text()):
        assert target.startswith("https://") or (ROOT / name).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{name}" for name in DOCS)])
def test_files_that_are_named_exist(name):
    for file in re.findall(r"`((?:src|tests|benchmarks)/[\w/.-]+\.\w+)`", (ROOT / name).read_text()):
        assert (ROOT / file).is_file(), file


def test_the_faults_name_tests_that_exist():
    table = DOCS["faults.md"]
    for file, start in re.findall(r"`(test_\w+\.py)::(test_\w+?)_?\.\.\.", table):
        assert f"def {start}" in next((ROOT / "tests").rglob(file)).read_text(), (file, start)
    assert len(re.findall(r"::test_", table)) >= 14
