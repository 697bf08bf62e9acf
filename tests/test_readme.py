"""What the README shows runs as it stands."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from event_files import some_events, write_nmnist
from helpers import folder_config, folder_of_pictures, shard_config
from trevsnn.cli.main import build_parser
from trevsnn.data.sets import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_python_examples_run(capsys):
    assert len(blocks("python")) == 2
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert re.fullmatch(r"tensor\(\[(\d, ){7}\d\]\)\n", capsys.readouterr().out)


EXAMPLES = blocks("python", DOCS["recurrence.md"])


@pytest.mark.parametrize("block", EXAMPLES, ids=["modules", "LIF", "neuron", "code", "readout"])
def test_examples_of_the_recurrence_have_the_gradients_of_autograd(block):
    results = []
    for mode in ("exact", "autograd"):
        torch.manual_seed(0)
        names: dict[str, Any] = {}
        assert block.count('backprop="exact"') == 1
        exec(compile(block.replace('backprop="exact"', f'backprop="{mode}"'), "recurrence.md", "exec"), names)
        modules = [m for value in names.values() for m in (value if isinstance(value, list) else [value])]
        parameters = dict.fromkeys(p for m in modules if isinstance(m, torch.nn.Module) for p in m.parameters())
        results.append([p.grad for p in parameters])
        assert parameters
    for ours, reference in zip(*results, strict=True):
        assert ours is None if reference is None else (ours - reference).norm() <= 1e-4 * reference.norm()
    alive = [grad is not None and bool(grad.any()) for grad in results[1]]
    assert sum(alive) >= 0.9 * len(alive)  # what is above the top level has no gradient


def test_the_backbone_in_the_guide_prints_what_stands_there(capsys):
    names: dict[str, Any] = {}
    for block in blocks("python", DOCS["backbone.md"]):
        exec(compile(block, "backbone.md", "exec"), names)
    assert capsys.readouterr().out == "".join(blocks("text", DOCS["backbone.md"]))


def test_the_fine_tuning_in_the_guide_trains_what_is_not_frozen():
    (block,) = blocks("python", DOCS["training.md"])
    names: dict[str, Any] = {}
    exec(compile(block, "training.md", "exec"), names)
    model, optimizer = names["model"], names["optimizer"]
    before = {name: value.clone() for name, value in model.named_parameters()}
    model(torch.randn(8, 3, 8, 8), all_heads=True)[-1].square().sum().backward()
    optimizer.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert "heads.3.classifier2.weight" in moved
    assert not any(name.startswith(("encoder.", "levels.0.", "levels.1.")) for name in moved)


def test_the_network_of_lif_neurons_in_the_guide_runs():
    (block,) = blocks("python", DOCS["lif-networks.md"])
    names: dict[str, Any] = {}
    exec(compile(block, "lif-networks.md", "exec"), names)
    assert names["logits_TBK"].shape == (8, 32, 10)
    assert all(p.grad is not None for p in names["net"].parameters())


def test_the_shards_written_in_the_guide_hold_the_folder_s_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder_of_pictures(tmp_path / "pictures", ("train", "val"), n=3)
    block, _ = blocks("python", DOCS["data.md"])
    exec(compile(block, "data.md", "exec"), {})
    for split in ("train", "val"):
        written = load(shard_config(tmp_path / "shards"), split, 1)
        folder = load(folder_config(tmp_path / "pictures"), split, 1)
        assert written.about == folder.about
        pairs = [{(part.read(i).tobytes(), int(part.labels_N[i])) for i in range(6)} for part in (written, folder)]
        assert pairs[0] == pairs[1]
        assert len(pairs[0]) == 6
        assert written.labels_N.tolist() != folder.labels_N.tolist()


def test_the_recording_read_in_the_guide_is_counted_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_nmnist(tmp_path / "00045.bin", some_events(500))
    _, block = blocks("python", DOCS["data.md"])
    names: dict[str, Any] = {}
    exec(compile(block, "data.md", "exec"), names)
    assert names["frames_TCHW"].sum() == 500
    assert np.array_equal(names["events"], some_events(500))


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
    assert sum("--recipe imagenet-tiny" in command for command in COMMANDS) == 6


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
