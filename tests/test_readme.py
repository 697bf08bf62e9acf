"""What the README shows runs as it stands."""

import re
import shlex
from pathlib import Path

import pytest

from trevsnn.cli.main import build_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_examples_run(capsys):
    assert len(blocks("python")) == 1
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert re.fullmatch(r"tensor\(\[(\d, ){7}\d\]\)\n", capsys.readouterr().out)


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
