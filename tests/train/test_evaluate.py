"""Evaluation inside a training."""

import json
import multiprocessing

import pytest
import torch
from lightning_fabric import Fabric
from sklearn.metrics import accuracy_score, confusion_matrix, top_k_accuracy_score

from helpers import folder_config, folder_of_pictures, imitate_fashion_mnist, metrics, train
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.cli.main import main
from trevsnn.data.loading import IGNORED
from trevsnn.data.pictures.folders import load_folder
from trevsnn.errors import UnreadableError
from trevsnn.run.config import RunConfig
from trevsnn.train.evaluate import evaluate, evaluate_part


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


@pytest.mark.parametrize("classes", [5, 7])
def test_figures_by_class_are_scikit_learn_s_without_what_is_ignored(classes):
    torch.manual_seed(0)
    logits, labels = torch.randn(90, classes), torch.randint(classes, (90,))
    labels[[3, 40, 41, 42, 43, 44]] = IGNORED  # a batch of nothing else among them
    rows = torch.arange(90)
    loader = [(rows[i : i + 5, None, None, None], labels[i : i + 5], rows[i : i + 5]) for i in range(0, 90, 5)]
    model = TRevSNN(TRevSNNConfig(channels=(2, 4), timesteps=1, num_classes=classes))
    given = {"engine": lambda inputs: logits[inputs.flatten().long()]}
    found = evaluate(model, loader, Fabric(accelerator="cpu", devices=1), **given, by_class=True)
    plain = evaluate(model, loader, Fabric(accelerator="cpu", devices=1), **given)
    readable = labels != IGNORED
    true, scores = labels[readable].numpy(), logits[readable].numpy()
    expected = confusion_matrix(true, scores.argmax(1), labels=range(classes))
    assert found.confusion_KK.tolist() == expected.tolist()
    assert found.accuracy == pytest.approx(accuracy_score(true, scores.argmax(1)))
    assert (found.loss, found.accuracy) == (plain.loss, plain.accuracy)
    assert plain.top5 is plain.confusion_KK is None
    if classes > 5:
        assert found.top5 == pytest.approx(top_k_accuracy_score(true, scores, k=5, labels=range(classes)))
    else:
        assert found.top5 is None


def test_no_loading_process_outlives_an_evaluation_that_fails(tmp_path):
    """Nor waits for the garbage collector, which comes to the frames of a caught error when it likes."""
    folder_of_pictures(tmp_path, ("train", "val"))
    config = RunConfig(TRevSNNConfig(channels=(2, 4), timesteps=1, num_classes=2), folder_config(tmp_path, workers=2))
    part = load_folder(config.data, "val")
    (tmp_path / "val" / "cat" / "000.png").write_bytes(b"no picture")
    before = multiprocessing.active_children()
    with pytest.raises(UnreadableError, match=r"000.png cannot be read") as kept:
        evaluate_part(TRevSNN(config.model), part, config, Fabric(accelerator="cpu", devices=1))
    assert [child for child in multiprocessing.active_children() if child not in before] == []
    assert kept.tb  # the error and its frames are still there
