"""Evaluating and predicting give the training's figures."""

import json

import pytest
import torch
from PIL import Image

from helpers import imitate_fashion_mnist, metrics, train
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.loading import TensorDataset
from trevsnn.data.sets import load
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
    dataset = TensorDataset(held_out, config.data, 0, training=False)
    with torch.no_grad():
        expected = model(torch.stack([dataset[0, i][0] for i in range(12)])).softmax(1)
    for i, row in enumerate(rows[:12]):
        assert row["class"] == str(int(expected[i].argmax()))
        assert row["probability"] == pytest.approx(float(expected[i].max()), abs=1e-5)
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert [row["file"] for row in rows] == [*files, big]
    assert main(["predict", str(finished), files[0]]) == 0
    assert "probability" in capsys.readouterr().out


def test_bf16_autocast_is_at_work_and_close_in_training_and_evaluation(tmp_path, capsys):
    # Small: processors without instructions for it are slow at bf16.
    options = ["--model.channels", "[2,4]", "--model.timesteps", "1", "--epochs", "1", "--optim.warmup_epochs", "0"]
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        train("--run", str(tmp_path / precision), "--precision", precision, *options)
        losses.append(float(metrics(tmp_path / precision)[0]["train_loss"]))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "bf16-mixed"), "--json"]) == 0
    result, row = json.loads(capsys.readouterr().out), metrics(tmp_path / "bf16-mixed")[-1]
    assert result["accuracy"] == float(row["val_accuracy"])
    assert result["loss"] == pytest.approx(float(row["val_loss"]), rel=1e-6)


def test_the_fashion_mnist_recipe_measures_the_test_part_at_the_end(tmp_path, capsys):
    imitate_fashion_mnist(tmp_path / "data")
    run = tmp_path / "run"
    options = [
        "--data.root", str(tmp_path / "data"), "--epochs", "1", "--optim.warmup_epochs", "0", "--batch_size", "256",
        "--model.channels", "[4,8]", "--model.timesteps", "1", "--model.encoder_stride", "4", "--accelerator", "cpu",
    ]  # fmt: skip
    assert main(["train", "--recipe", "fashion-mnist", *options, "--run", str(run)]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["items"] == {"train": 1000, "val": 5000, "test": 6000}
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["split"], result["items"], result["accuracy"]) == ("test", 6000, summary["test_accuracy"])
