"""Training on pictures seen row by row, and what is done with the trained network."""

import json

import pytest
import torch
from PIL import Image

from conftest import gradients, worst
from helpers import SMALL
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.loading import real_items
from trevsnn.data.sets import load
from trevsnn.network.losses import temporal_loss
from trevsnn.run.load import load_run

ROWS = [
    "train", *SMALL, "--data.rows", "true", "--model.input", "event", "--model.in_chans", "1", "--model.timesteps", "4",
    "--model.encoder_stride", "1", "--optim.lr", "0.03", "--optim.warmup_epochs", "0", "--batch_size", "16", "--epochs", "1",
]  # fmt: skip


@pytest.mark.parametrize("links", ["adjacent", "all"])
def test_maps_one_pixel_high_have_the_same_gradients_in_every_mode(small_model, device, links):
    model = small_model(torch.float64, input="event", in_chans=1, timesteps=28, channels=(8, 12, 16), links=links)
    x, y = torch.randn(6, 28, 1, 1, 28, dtype=torch.float64).to(device), torch.tensor([0, 1, 2, 3, 4, 0]).to(device)
    found = {}
    for mode in ("autograd", "exact", "reversible"):
        model.set_backprop(mode)
        found[mode] = gradients(model, temporal_loss(model.forward_time(x), y))
    assert worst(found["exact"], found["autograd"]) < 1e-12
    assert worst(found["reversible"], found["autograd"]) < 1e-6


def test_a_run_on_rows_is_trained_evaluated_exported_and_predicts(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "exported"
    assert main([*ROWS, "--run", str(run)]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["last_accuracy"] > 0.2
    assert main(["export", str(run), "--out", str(out), "--formats", "onnx", "onnx-int8"]) == 0
    rows = {row["name"]: row for row in json.loads((out / "about.json").read_text())["comparisons"]}
    for name in ("folded", "onnx"):
        assert rows[name]["same_class"] == rows[name]["items"] == 256
    assert rows["8-bit arithmetic"]["same_class"] > 200
    assert "T = 4, for pictures of 8 x 8 seen row by row, 10 classes" in (out / "README.md").read_text()
    files = []
    for i in range(5):
        files.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(load(DataConfig(), "val", 1).images[i]).save(files[-1])
    model, config, about, _ = load_run(run, "last")
    with torch.no_grad():
        logits = model(real_items(config.data, 4, 5))
    integer = []
    for folder, engine in ((run, "eager"), (out, "onnx"), (out, "onnx-int8"), (out, "spikes")):
        capsys.readouterr()
        assert main(["predict", str(folder), *files, "--engine", engine, "--json"]) == 0
        found = [row["probabilities"] for row in json.loads(capsys.readouterr().out)]
        probabilities = [[row[name] for name in about.classes] for row in found]
        if engine in ("eager", "onnx"):
            torch.testing.assert_close(torch.tensor(probabilities), logits.softmax(1), atol=1e-5, rtol=0)
        else:
            integer.append(torch.tensor(probabilities))
    torch.testing.assert_close(integer[0], integer[1], atol=1e-6, rtol=0)  # to the spike
    assert main(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == summary["last_accuracy"]
    assert main(["stream", str(run), files[0]]) == 2
    assert "was trained on pictures: use trevsnn predict" in capsys.readouterr().err
    assert main(["predict", str(run), str(tmp_path / "none.png")]) == 1
    assert "none.png does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--model.input", "image"],
            "model.input is 'image', but digits are seen row by row: set model.input to event",
        ),
        (["--model.in_chans", "2"], "model.in_chans is 2, but digits are grey: set it to 1"),
        (["--model.timesteps", "9"], "a picture of 8 rows makes 8 frames at most: lower it to 8"),
        (["--data.name", "n-mnist"], "data.rows is for pictures, but n-mnist are recordings"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, capsys, options, message):
    assert main([*ROWS, *options, "--run", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert not (tmp_path / "run").exists()
