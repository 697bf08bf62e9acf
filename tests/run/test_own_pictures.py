"""A folder of one's own pictures trains without a config."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers import folder_of_pictures, metrics
from trevsnn.cli.main import main
from trevsnn.data.pictures.look import Look
from trevsnn.errors import RunError
from trevsnn.network.model import TRevSNN
from trevsnn.run.config import parse_config, recipe_config, to_dict
from trevsnn.run.own_pictures import NETWORKS, batch_size, choose, config_for, input_size, network_for


def look(*sizes: tuple[int, int], grey: bool = False, pictures: int = 5000) -> Look:
    return Look(Path("set"), (), ("a", "b", "c"), pictures, sizes, grey, {})


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(64, 64)], (64, 64)),
        ([(8, 8)], (8, 8)),
        ([(28, 28)], (28, 28)),
        ([(33, 33)], (32, 32)),
        ([(4000, 4000)], (224, 224)),
        ([(480, 640)], (176, 224)),  # 168 and 224, in sixteens
        ([(640, 480)], (224, 176)),
        ([(20, 100)], (24, 104)),
        ([(480, 640)] * 3 + [(640, 480)] * 2, (224, 224)),  # of no common aspect
        ([(100, 110)], (96, 96)),  # hardly oblong
        ([(1, 1)], (2, 2)),
    ],
)
def test_the_input_is_about_as_large_as_the_pictures(sizes, expected):
    assert input_size(look(*sizes)) == expected


def test_the_network_grows_with_the_input():
    assert [network_for(side, side).stride for side in (8, 12, 13, 40, 41, 80, 81, 224)] == [1, 1, 1, 1, 2, 2, 4, 4]
    assert [len(network_for(side, side).channels) for side in (8, 12, 13, 224)] == [3, 3, 4, 4]
    recipes = [recipe_config(name).model for name in ("digits", "cifar-10", "tiny-imagenet")]
    assert [(n.stride, n.channels) for n in NETWORKS[:3]] == [(m.encoder_stride, m.channels) for m in recipes]


def test_a_step_has_no_more_pictures_than_there_are():
    assert [batch_size(n) for n in (2, 5, 20, 799, 1600, 3199, 3200, 10**6)] == [2, 5, 16, 16, 32, 32, 64, 64]


def test_options_win_over_what_is_chosen():
    chosen = choose({}, look((64, 64)))
    assert (chosen["data.grey"], chosen["model.in_chans"], chosen["data.flip"]) == (False, 3, True)
    assert (chosen["model.num_classes"], chosen["optim.warmup_epochs"], chosen["data.reduced"]) == (3, 1.5, False)
    grey = choose({}, look((64, 64), grey=True))
    assert (grey["data.grey"], grey["model.in_chans"], grey["data.flip"]) == (True, 1, False)
    assert choose({"model.in_chans": 3}, look((64, 64), grey=True))["data.grey"] is False
    assert choose({"data.color_jitter": 0.4}, look((64, 64), grey=True))["model.in_chans"] == 3
    assert choose({"data.grey": True}, look((64, 64)))["model.in_chans"] == 1
    assert (chosen["data.crop_padding"], choose({"data.crop": "resized"}, look((64, 64)))["data.crop_padding"]) == (
        4,
        0,
    )
    small = choose({"data.image_size": 32, "epochs": 10}, look((64, 64)))
    assert "data.image_size" not in small
    assert (small["model.encoder_stride"], small["data.reduced"], small["optim.warmup_epochs"]) == (1, True, 0.5)


def test_the_config_from_python_is_that_of_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder_of_pictures(tmp_path, ("set/train", "set/val"))
    assert main(["train", "--data.root", "set", "--epochs", "4", "--print_config"]) == 0
    printed = capsys.readouterr().out
    config = config_for("set", ["--epochs", "4"])
    assert yaml.safe_load(printed) == to_dict(config)
    assert (
        "# set: 2 classes, 40 pictures to train on; of 40 looked at the median is 10 x 12 (height x width)" in printed
    )
    assert (config.data.image_size, config.model.num_classes, config.epochs, config.batch_size) == ((10, 12), 2, 4, 16)
    assert (config.optim.name, config.model.encoding, config.optim.warmup_epochs) == ("muon", "grouped", 0.2)
    with pytest.raises(RunError, match="nowhere is no folder"):
        config_for("nowhere")


def write_pictures(root: Path, kind: str, parts: tuple[str, ...], n: int = 12) -> None:
    """Two classes that differ in their brightness: dark and light."""
    dice = np.random.default_rng(0)
    for part in parts:
        for name, low in (("dark", 0), ("light", 130)):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                levels = dice.integers(low, low + 120, (16, 16, 4), np.uint8)
                deep = levels[:, :, 0].astype(np.uint16) * 257 + levels[:, :, 1]
                pixels = {"grey": levels[:, :, 0], "deep": deep, "RGB": levels[:, :, :3], "RGBA": levels}[kind]
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")


@pytest.mark.parametrize(
    ("kind", "parts", "channels"),
    [("RGB", ("",), 3), ("grey", ("train", "val"), 1), ("deep", ("",), 1), ("RGBA", ("train", "test"), 3)],
)
def test_pictures_of_every_kind_train_and_the_config_repeats_it(tmp_path, monkeypatch, capsys, kind, parts, channels):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "set", kind, parts)
    small = ["--model.channels", "[4,4]", "--epochs", "2", "--accelerator", "cpu", "--ema_decay", "0.5"]
    assert main(["train", "--data.root", "set", *small]) == 0
    out = capsys.readouterr().out
    assert "chosen: data.image_size 16, " in out
    assert f"model.in_chans {channels}" in out
    assert ("held out for validation, by a hash" in out) == (parts == ("",))
    run = tmp_path / "runs" / "folder"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["grey"] == (channels == 1)
    assert (config["model"]["num_classes"], config["model"]["in_chans"]) == (2, channels)
    if kind == "deep":
        assert main(["train", "--config", str(run / "config.yaml"), "--run", "again"]) == 0
        assert [row["val_loss"] for row in metrics(tmp_path / "again")] == [row["val_loss"] for row in metrics(run)]
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json", "--split", "val", "--accelerator", "cpu"]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert json.loads(capsys.readouterr().out)["accuracy"] == summary["last_accuracy"]
    picture = next((tmp_path / "set" / parts[0] / "light").iterdir())
    assert main(["predict", str(run), str(picture), "--json", "--accelerator", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["class"] in ("dark", "light")


@pytest.mark.parametrize("side", [8, 16, 64, 100])
def test_every_network_that_is_chosen_can_be_built(side):
    chosen = choose({}, look((side, side)))
    config = parse_config(
        ["--recipe", "digits", *(f"--{name}={value}" for name, value in chosen.items() if name.startswith("model"))]
    )
    assert sum(p.numel() for p in TRevSNN(config.model).parameters()) < 3e6


def test_a_folder_of_recordings_is_told_how_these_are_trained_on(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "left", tmp_path / "right"):
        folder.mkdir(exist_ok=True)
        (folder / "1.npz").touch()
        assert main(["train", "--data.root", str(tmp_path)]) == 1
        assert "holds recordings of an event camera" in (said := capsys.readouterr().err)
        assert "--recipe n-mnist --data.name recordings" in said
