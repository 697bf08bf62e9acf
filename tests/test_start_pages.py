"""The commands of the README and of the Start pages run as they stand, in their order, each page in a folder that has what it names.

They train, which takes minutes: ``pytest -m long`` runs them, and of the README those that are quick are always run, in this
process. What they print is not compared. Pictures and recordings are made up, few and small.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from doc_pages import blocks, commands
from event_files import some_events, write_csv, write_evt3, write_nmnist
from helpers import folder_of_pictures, picture
from trevsnn.cli.main import main

ENVIRONMENT = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
#: Left out, also before and after an &&: this environment is installed, and this is a test.
LEFT_OUT = ("pip ", "python3 -m venv ", ". .venv/bin/activate", "pytest")


def run(page: str, folder: Path) -> None:
    """Run the page's blocks as a reader does who copies them into a terminal, and fails where a command does."""
    for block in blocks(page, "bash", "python"):
        if block.language == "python":
            program = [sys.executable, "-c", block.text]
        else:
            lines = [line.split(" && ") for line in block.text.splitlines()]
            kept = [" && ".join(part for part in line if not part.startswith(LEFT_OUT)) for line in lines]
            program = ["bash", "-euo", "pipefail", "-c", "\n".join(kept)]
        done = subprocess.run(program, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.long
def test_the_readme(tmp_path):
    folder_of_pictures(tmp_path, ("FOLDER",))
    picture(0).save(tmp_path / "picture.png")
    write_nmnist(tmp_path / "recording.bin", some_events(2000))
    run("README.md", tmp_path)
    assert (tmp_path / "exported" / "model.onnx").is_file()


def test_the_readme_s_command_line(tmp_path, monkeypatch, capsys):
    """But for the training on digits and the measurement of memory, which take minutes."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    for name, grey in (("dark", 30), ("light", 220)):
        (tmp_path / "FOLDER" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (8, 8), (grey + i,) * 3).save(tmp_path / "FOLDER" / name / f"{i}.png")
    picture(0).save("picture.png")
    write_nmnist(Path("recording.bin"), some_events(300))
    given = commands("README.md")
    slow = ["trevsnn train", "trevsnn measure memory --timesteps 4 8 16"]
    assert [given[0], given[-1]] == slow
    printed = []
    for command in given[1:-1]:
        assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err
        printed.append(capsys.readouterr().out)
    trained, tuned, resumed, evaluated, predicted, streamed, exported = printed
    assert "runs/folder" in trained
    assert "encoder and 1 levels frozen" in tuned
    assert "runs/folder has ended already, after 30 epochs" in resumed
    for run_folder in ("folder", "folder-2"):
        assert Path("runs", run_folder, "checkpoints", "step-000000030", "model.safetensors").is_file()
    accuracy = json.loads(Path("runs/folder/summary.json").read_text())["last_accuracy"]
    assert f"{accuracy:.2%}" in evaluated
    assert all(f"{name} " in evaluated for name in ("dark", "light", "rate, level 0"))
    assert "picture.png" in predicted
    assert streamed.count("to compute") == 4  # of 25 ms each
    for form in ("model.onnx", "model.pt2", "model-int8.onnx", "model.safetensors", "config.json", "README.md"):
        assert Path("exported", form).is_file()
    assert "none of" in exported


@pytest.mark.long
def test_five_minutes(tmp_path):
    run("docs/start/five-minutes.md", tmp_path)
    assert (tmp_path / "runs" / "digits" / "curves.png").is_file()


@pytest.mark.long
def test_own_pictures(tmp_path):
    pytest.importorskip("trevsnn_networks")  # which has cifar-10
    folder_of_pictures(tmp_path, ("pictures",), ("cat", "fridge", "stork"))
    folder_of_pictures(tmp_path, ("FOLDER",), ("a", "b"), n=3)
    picture(0).save(tmp_path / "new.jpg")
    picture(1).save(tmp_path / "another.png")
    (tmp_path / "labels.csv").write_text("file,label\nanother.png,cat\n")
    run("docs/start/own-pictures.md", tmp_path)
    assert (tmp_path / "confusion" / "confusion.png").is_file()


@pytest.mark.long
def test_own_events(tmp_path):
    """Thirty recordings of three classes, one of which is the one that the page predicts."""
    names = [f"{number:05}.bin" for number in (2, 383, *range(400, 428))]
    labels = ["zero", "one", "two"] * 10
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        events = some_events(400, seed=i)
        events["y"] = events["y"] // 3 + 11 * ("zero", "one", "two").index(label)
        write_nmnist(tmp_path / "recordings" / name, events)
    table = "".join(f"{name},{label}\n" for name, label in zip(names, labels, strict=True))
    (tmp_path / "recordings" / "labels.csv").write_text("file,label\n" + table)
    events = some_events(300)
    rows = [f"{e['x']},{e['y']},{e['t'] / 1e6},{2 * int(e['p']) - 1}" for e in events]
    (tmp_path / "seconds.csv").write_text("\n".join(["x,y,t,p", *rows]) + "\n")
    long = np.concatenate([some_events(5000, seed=i) for i in range(10)])
    long["t"] += np.repeat(100_000 * np.arange(10), 5000)
    write_csv(tmp_path / "long.csv", long)
    write_evt3(tmp_path / "long.raw", long)
    run("docs/start/own-events.md", tmp_path)
    assert (tmp_path / "over-time.png").is_file()
