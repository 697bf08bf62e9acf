"""A run's accuracy and predictions are those of its training."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.loading import TensorDataset
from trevsnn.data.sets import load
from trevsnn.deploy.inference import evaluate_run
from trevsnn.run.load import load_run


def test_evaluate_repeats_the_training_figures(finished, capsys):
    summary = json.loads((finished / "summary.json").read_text())
    for weights, name in (("last", "last_accuracy"), ("best", "best_accuracy")):
        assert main(["evaluate", str(finished), "--json", "--weights", weights]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["accuracy"] == summary[name]
        assert (result["split"], result["items"]) == ("val", 360)
    assert main(["evaluate", str(finished), "--split", "train"]) == 0
    assert "1437 train items" in " ".join(capsys.readouterr().out.split())


def test_predict_gives_the_model_s_class_and_probability(finished, tmp_path, capsys):
    held_out = load(DataConfig(), "val", 1)
    files = []
    for i in range(12):
        files.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(held_out.images[i]).save(files[-1])
    big = str(tmp_path / "big.png")
    Image.fromarray(held_out.images[0]).convert("RGB").resize((64, 64)).save(big)
    assert main(["predict", str(finished), *files, big, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    model, config, _, _ = load_run(finished, "last")
    dataset = TensorDataset(held_out, config.data, 0, timesteps=config.model.timesteps, training=False)
    with torch.no_grad():
        expected = model(torch.stack([dataset[0, i][0] for i in range(12)])).softmax(1)
    for i, row in enumerate(rows[:12]):
        assert row["class"] == str(int(expected[i].argmax()))
        assert row["probability"] == pytest.approx(float(expected[i].max()), abs=1e-5)
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert [row["file"] for row in rows] == [*files, big]
    assert main(["predict", str(finished), files[0]]) == 0
    assert "probability" in capsys.readouterr().out


def test_an_engine_of_the_cpu_runs_there_whatever_the_accelerator():
    """Which is "auto" where nothing is said, and then a GPU if there is one."""
    export = Path(__file__).parents[1] / "earlier" / "v0.1.0" / "export"
    found = [evaluate_run(export, None, "last", accelerator, "int8") for accelerator in ("cpu", "cuda", "auto")]
    assert found[0]["items"] == 360
    assert found[0] == found[1] == found[2]
