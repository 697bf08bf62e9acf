"""Runs on shards, from training to the exported network."""

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from helpers import SMALL, assert_same, shards_of_folder, train
from processes import start, start_two
from trevsnn.cli.main import main

ITEMS = 200


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> tuple[Path, Path]:
    """Three of the digits in a folder, and the same in shards of 20."""
    folder, shards = tmp_path_factory.mktemp("digits") / "folder", tmp_path_factory.mktemp("shards")
    digits = load_digits()
    chosen = np.flatnonzero(digits.target < 3)[:ITEMS]
    for number, index in enumerate(chosen):
        part, label = "val" if number % 5 == 0 else "train", digits.target[index]
        (folder / part / f"digit{label}").mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((digits.images[index] * 15).astype(np.uint8))
        grey.save(folder / part / f"digit{label}" / f"{index:04}.png")
    shards_of_folder(folder, shards, 20)
    return folder, shards


def options(shards: Path) -> list[str]:
    return [
        "--data.name", "shards", "--data.root", str(shards), "--data.cache", str(shards / "cache"), "--model.in_chans", "3",
        "--model.num_classes", "3", "--model.timesteps", "1", "--batch_size", "16", "--data.flip", "true",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory) -> Path:
    """A run on the shards that nothing interrupted, not to be changed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train("--run", str(run), *options(pictures[1]))
    return run


def test_a_killed_run_on_shards_goes_on_to_the_same_weights(pictures, whole, tmp_path):
    """Killed in the middle of an epoch, with the pictures loaded by another process, and without an index at the end."""
    run = tmp_path / "killed"
    each_step = ["--checkpoint_seconds", "0", "--data.workers", "1"]
    process = start(["train", *SMALL, *options(pictures[1]), *each_step, "--run", str(run)])
    deadline = time.monotonic() + 120
    while not any(int(p.name[5:]) >= 13 for p in (run / "checkpoints").glob("step-*") if p.is_dir()):
        assert process.is_alive(), "ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.join()
    assert not (run / "summary.json").exists()
    shutil.rmtree(pictures[1] / "cache")
    assert main(["train", "--resume", str(run)]) == 0
    assert_same(whole, run)
    ours, theirs = (json.loads((r / "summary.json").read_text()) for r in (run, whole))
    assert ours["split_sha256"] == theirs["split_sha256"]
    assert ours["items"] == theirs["items"] == {"train": 160, "val": 40}


def test_shards_are_evaluated_exactly_as_the_folder(pictures, whole, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    config = (run / "config.yaml").read_text()
    config = config.replace("name: shards", "name: folder").replace(f"root: {pictures[1]}", f"root: {pictures[0]}")
    (run / "config.yaml").write_text(config)
    results = []
    for each in (whole, run):
        for split in ("val", "train"):
            assert main(["evaluate", str(each), "--split", split, "--json"]) == 0
            results.append(json.loads(capsys.readouterr().out) | {"run": ""})
    assert results[:2] == results[2:]
    assert results[0]["items"] == 40


def test_a_run_on_shards_predicts_and_is_exported(pictures, whole, tmp_path, capsys):
    files = [str(next((pictures[0] / "val" / f"digit{label}").iterdir())) for label in range(3)]
    out = tmp_path / "out"
    assert main(["export", str(whole), "--out", str(out), "--formats", "onnx-int8"]) == 0
    capsys.readouterr()
    rows = []
    for folder in (whole, out):
        assert main(["predict", str(folder), *files, "--json"]) == 0
        rows.append(json.loads(capsys.readouterr().out))
        assert main(["evaluate", str(folder), "--json"]) == 0
        rows.append(json.loads(capsys.readouterr().out)["accuracy"])
    assert rows[:2] == rows[2:]
    assert {row["class"] for row in rows[0]} <= {"digit0", "digit1", "digit2"}


def test_two_processes_train_on_shards(pictures, whole, tmp_path):
    run, cache = tmp_path / "run", tmp_path / "cache"
    arguments = [*options(pictures[1]), "--data.cache", str(cache), "--epochs", "2"]
    for process in start_two(["train", *SMALL, *arguments, "--run", str(run)]):
        process.join(120)
        assert process.exitcode == 0
    ours, theirs = (json.loads((r / "summary.json").read_text()) for r in (run, whole))
    assert ours["split_sha256"] == theirs["split_sha256"]
    assert (ours["processes"], ours["steps"], ours["items"]) == (2, 20, {"train": 160, "val": 40})
    assert [path.suffix for path in cache.iterdir()] == [".index"] * 10


def test_what_does_not_fit_is_said(pictures, tmp_path, capsys):
    folder, shards = pictures
    wrong = ["train", *SMALL, *options(shards), "--run", str(tmp_path / "run")]
    assert main([*wrong, "--model.num_classes", "5"]) == 2
    assert "model.num_classes is 5, but shards has 3: set it to 3" in capsys.readouterr().err
    assert main([*wrong, "--data.root", str(folder)]) == 1
    assert re.search("holds no shards: it needs some of train", capsys.readouterr().err)
    assert main([*wrong, "--data.event_drop", "0.5"]) == 2
    assert "data.event_drop is for recordings, but shards are pictures" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
