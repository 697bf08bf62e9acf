"""Training, evaluating and predicting on recordings, through the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from event_files import folder_of_recordings, write_nmnist
from helpers import assert_same
from trevsnn import TRevSNN
from trevsnn.cli.main import main
from trevsnn.data.events.recordings import read_recording

SMALL = [
    "--recipe", "n-mnist", "--model.channels", "[4,8]", "--model.timesteps", "3", "--batch_size", "8",
    "--optim.warmup_epochs", "0", "--accelerator", "cpu",
]  # fmt: skip


@pytest.mark.parametrize(("loss", "readout"), [("temporal", "last"), ("deep_supervision", "mean")])
def test_training_evaluating_and_predicting_recordings(tmp_path, capsys, loss, readout):
    folder_of_recordings(tmp_path / "data", 20, ("train", "test"))
    run = str(tmp_path / "run")
    options = ["--data.root", str(tmp_path / "data"), "--data.cache", str(tmp_path / "cache"), "--data.event_drop", "0.2",
               "--model.num_classes", "2", "--run", run, "--epochs", "8", "--loss", loss, "--optim.lr", "0.03",
               "--data.image_size", "16", "--ema_decay", "null", "--model.readout", readout]  # fmt: skip
    assert main(["train", *SMALL, *options]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["items"] == {"train": 36, "val": 4, "test": 40}
    assert summary["test_accuracy"] > 0.8
    capsys.readouterr()
    file = str(tmp_path / "data" / "test" / "dog" / "dog_3.bin")
    assert main(["predict", run, str(tmp_path / "data" / "test"), "--json"]) == 0
    right = [Path(row["file"]).parent.name == row["class"] for row in json.loads(capsys.readouterr().out)]
    assert (len(right), np.mean(right)) == (40, pytest.approx(summary["test_accuracy"]))
    assert main(["predict", run, file, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    shutil.rmtree(tmp_path / "cache")  # binning again, with a bar that must not stand in the JSON
    assert main(["evaluate", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == summary["test_accuracy"]
    picture = tmp_path / "over-time.png"
    assert main(["stream", run, file, "--json", "--picture", str(picture)]) == 0
    frames = json.loads(capsys.readouterr().out)
    assert [frame["frame"] for frame in frames] == [1, 2, 3]
    events = read_recording(Path(file))
    assert frames[-1]["until"] == events["t"][-1] - events["t"][0] > frames[0]["until"] > 0
    assert frames[-1]["probabilities"] == row["probabilities"]  # those of the whole clip, bit for bit
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["stream", run, file]) == 0
    assert capsys.readouterr().out.count(row["class"]) >= 1
    (tmp_path / "short.bin").write_bytes(b"12345678")
    for command in ("predict", "stream"):
        assert main([command, run, str(tmp_path / "short.bin")]) == 1
        assert "short.bin cannot be read as a recording" in capsys.readouterr().err
    assert main(["stream", "digits", file]) == 2
    assert "digits was trained on pictures: use trevsnn predict" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("slope_epochs", "formats"),
    [(0, ["onnx", "int8", "onnx-int8"]), (3, ["torch", "onnx", "int8", "onnx-int8"])],
    ids=str,
)
def test_every_form_of_a_network_trained_to_the_mean_of_logits(tmp_path, capsys, slope_epochs, formats):
    """At the end of its training, and where the leaky ReLU's slope had not come to 1: the mean is not of rates then."""
    folder_of_recordings(tmp_path / "data", 10, ("train", "test"))
    run, out = tmp_path / "run", tmp_path / "out"
    options = ["--data.root", str(tmp_path / "data"), "--data.cache", str(tmp_path / "cache"), "--model.num_classes", "2",
               "--run", str(run), "--epochs", "2", "--optim.lr", "0.008", "--slope_epochs", str(slope_epochs),
               "--data.image_size", "16", "--ema_decay", "null", "--loss", "temporal",
               "--model.timesteps", "2"]  # fmt: skip
    assert main(["train", *SMALL, *options, "--model.readout", "mean"]) == 0
    assert main(["export", str(run), "--out", str(out), "--formats", *formats]) == 0
    report = json.loads((out / "about.json").read_text())
    rows = {row["name"]: row for row in report["comparisons"]}
    assert ("torch.export" in rows) == ("torch" in formats)
    for name in ("folded", "onnx", *["torch.export"] * ("torch" in formats)):
        assert rows[name]["largest"] < 1e-5
        assert rows[name]["same_class"] == rows[name]["items"] == 20
    assert "with the mean of the logits over time" in (out / "README.md").read_text()
    model = TRevSNN.from_pretrained(out)
    assert (model.config.readout, model.heads[-1].activation.slope == 1) == ("mean", slope_epochs == 0)
    loss = {}
    capsys.readouterr()
    for engine in ("eager", "folded", "int8", "onnx", "onnx-int8", "spikes"):
        assert main(["evaluate", str(out), "--engine", engine, "--json"]) == 0
        loss[engine] = json.loads(capsys.readouterr().out)["loss"]
    assert [loss["folded"], loss["onnx"]] == pytest.approx([loss["eager"]] * 2, rel=1e-5)
    assert loss["spikes"] == pytest.approx(loss["onnx-int8"], rel=1e-5)
    assert [loss["int8"], loss["onnx-int8"]] == pytest.approx([loss["eager"]] * 2, rel=0.1)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"readout": "last"}))
    (out / "config.yaml").write_text((out / "config.yaml").read_text().replace("readout: mean", "readout: last"))
    for engine in ("int8", "onnx", "onnx-int8", "spikes"):
        assert main(["evaluate", str(out), "--engine", engine]) == 1
        assert "is of another model than the weights and config beside it" in capsys.readouterr().err


def test_the_direction_of_time_is_chance_with_one_frame(tmp_path, capsys):
    folder_of_recordings(tmp_path / "data", 20, ("train", "test"))
    run = tmp_path / "run"
    options = ["--data.root", str(tmp_path / "data"), "--data.cache", str(tmp_path / "cache"), "--data.image_size", "16",
               "--data.task", "direction", "--model.timesteps", "1", "--epochs", "1", "--optim.warmup_epochs", "0",
               "--model.channels", "[4,8]", "--run", str(run)]  # fmt: skip
    assert main(["train", *SMALL, *options]) == 2
    assert "model.num_classes is 10, but n-mnist has 2: set it to 2" in capsys.readouterr().err
    assert main(["train", *SMALL, *options, "--model.num_classes", "2"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["items"] == {"train": 72, "val": 8, "test": 80}
    assert summary["test_accuracy"] == 0.5  # of two inputs that are the same, one is right
    capsys.readouterr()
    assert main(["predict", str(run), str(tmp_path / "data" / "test" / "dog" / "dog_3.bin"), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)[0]["probabilities"]) == ["forward", "reversed"]


def test_a_run_on_pieces_takes_the_first_piece_of_a_file(tmp_path, capsys):
    folder_of_recordings(tmp_path / "data", 4)
    run = tmp_path / "run"
    options = ["--data.name", "recordings", "--data.sensor", "[34,34]", "--data.root", str(tmp_path / "data"),
               "--data.cache", str(tmp_path / "cache"), "--data.image_size", "16", "--data.piece_ms", "8.9",
               "--model.timesteps", "2", "--epochs", "1", "--optim.warmup_epochs", "0", "--model.num_classes", "2",
               "--model.channels", "[4,8]", "--run", str(run)]  # fmt: skip
    assert main(["train", *SMALL, *options]) == 0
    assert json.loads((run / "summary.json").read_text())["items"] == {"train": 56, "val": 16, "test": 16}
    events = read_recording(tmp_path / "data" / "dog" / "dog_1.bin")
    piece = events[events["t"] < events["t"][0] + 8900]
    write_nmnist(tmp_path / "piece.bin", np.append(piece, events[-1:]))  # what comes after the piece does not matter
    capsys.readouterr()
    assert (
        main(["predict", str(run), str(tmp_path / "data" / "dog" / "dog_1.bin"), str(tmp_path / "piece.bin"), "--json"])
        == 0
    )
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["probabilities"] == rows[1]["probabilities"]
    assert main(["stream", str(run), str(tmp_path / "piece.bin"), "--json"]) == 0
    frames = json.loads(capsys.readouterr().out)
    assert frames[-1]["until"] == piece["t"][-1] - piece["t"][0]
    assert frames[-1]["probabilities"] == rows[1]["probabilities"]
    write_nmnist(tmp_path / "short.bin", piece[:5])
    for command in ("predict", "stream"):
        assert main([command, str(run), str(tmp_path / "short.bin")]) == 1
        assert "short.bin does not fit the run's data set: it lasts" in capsys.readouterr().err


@pytest.mark.parametrize("loss", ["temporal", "deep_supervision"])
def test_training_on_mixed_recordings_is_repeatable(tmp_path, loss):
    folder_of_recordings(tmp_path / "data", 20, ("train", "test"))
    options = ["--data.root", str(tmp_path / "data"), "--data.cache", str(tmp_path / "cache"), "--data.image_size", "16",
               "--data.event_mix", "1.0", "--data.rotation", "15", "--data.shear", "15", "--data.erasing", "0.3", "--epochs", "1",
               "--optim.warmup_epochs", "0", "--model.num_classes", "2", "--model.channels", "[4,8]", "--model.timesteps", "2",
               "--loss", loss]  # fmt: skip
    for name, more in (("a", []), ("b", []), ("plain", ["--data.event_mix", "0"])):
        assert main(["train", *SMALL, *options, *more, "--run", str(tmp_path / name)]) == 0
    assert_same(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "a", tmp_path / "plain")
