"""What the README shows runs as it stands."""

import re
import shlex
from pathlib import Path

import pytest

from trevsnn.cli import _expand_recipe, build_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_examples_run(capsys):
    assert len(blocks("python")) == 1
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert re.fullmatch(r"tensor\(\[(\d, ){7}\d\]\)\n", capsys.readouterr().out)


COMMANDS = [line.split("#")[0] for block in blocks("bash") for line in block.splitlines() if line.startswith("trevsnn")]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("epochs: 7\n")
    options = build_parser().parse_args(_expand_recipe(shlex.split(command)[1:]))
    assert options.command == shlex.split(command)[1]
    if "--config" in command:
        assert (options.train.epochs, options.train.seed) == (7, 1)


def test_there_are_commands_of_every_kind():
    assert {command.split()[1] for command in COMMANDS} == {"train", "evaluate", "predict", "measure"}


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
