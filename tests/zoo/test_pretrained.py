"""The trained networks that come with the package."""

import json
import sys
import tarfile
import zlib
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image
from timm import create_model as timm_create_model

import trevsnn
from conftest import shared_data
from helpers import FASHION, needs_debian
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.sets import load
from trevsnn.errors import UsageError
from trevsnn.zoo.presets import APART, PRESETS, pretrained_folder

PRETRAINED = pretrained_folder("digits").parent


def test_it_has_the_accuracy_its_card_states(capsys):
    assert main(["evaluate", "digits", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["items"] == 360
    assert result["accuracy"] >= 0.98


def test_predict_works_before_any_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    part = load(DataConfig(), "val", 1)
    for index in range(8):
        Image.fromarray(np.asarray(part.read(index))).save(tmp_path / f"{index}.png")
    assert main(["predict", "digits", *(f"{index}.png" for index in range(8)), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    right = sum(row["class"] == part.classes[label] for row, label in zip(rows, part.labels_N[:8], strict=True))
    assert right >= 7
    assert main(["predict", "letters", "0.png"]) == 1
    assert "letters is no run" in capsys.readouterr().err


@needs_debian
def test_fashion_mnist_knows_its_test_pictures(tmp_path, capsys):
    part = load(FASHION, "test", 1)
    files = [tmp_path / f"{index}.png" for index in range(200)]
    for index, file in enumerate(files):
        Image.fromarray(np.asarray(part.read(index))).save(file)
    assert main(["predict", "fashion-mnist", *map(str, files), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert np.mean([row["class"] == part.classes[label] for row, label in zip(rows, part.labels_N, strict=False)]) > 0.9


def test_n_mnist_has_the_accuracy_it_is_said_to_have(tmp_path, monkeypatch, capsys):
    with tarfile.open(shared_data("nmnist-small.tar.gz")) as file:
        file.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trevsnn.data.events.cache.CACHE", tmp_path / "cache")
    assert main(["evaluate", "n-mnist", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["items"] == 100
    row = next(line for line in (PRETRAINED / "README.md").read_text().splitlines() if line.startswith("| `n-mnist` |"))
    assert f"| {100 * result['accuracy']:.1f} % test |" in row


def test_tiny_imagenet_knows_its_held_out_pictures(tmp_path, capsys):
    with tarfile.open(shared_data("tiny-imagenet-20c.tar.gz")) as file:
        held_out = [member for member in file if "/val/" in member.name]
        file.extractall(tmp_path, held_out, filter="data")
    pictures = sorted(tmp_path.glob("*/val/*/*.JPEG"))[::5]
    assert main(["predict", "tiny-imagenet", *map(str, pictures), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert np.mean([row["class"] == path.parent.name for row, path in zip(rows, pictures, strict=True)]) > 0.55


def test_cifar_10_knows_its_test_pictures(tmp_path, capsys):
    with tarfile.open(shared_data("cifar10-jpeg.tar.gz")) as file:
        some = [member for member in file if member.name.startswith("test/") and member.name.endswith("0.jpg")][::5]
        file.extractall(tmp_path, some, filter="data")
    pictures = sorted(tmp_path.glob("test/*/*.jpg"))
    assert main(["predict", "cifar-10", *map(str, pictures), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 200
    assert np.mean([row["class"] == path.parent.name for row, path in zip(rows, pictures, strict=True)]) > 0.75


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("digits", (2, 1, 8, 8)),
        ("fashion_mnist", (2, 1, 28, 28)),
        ("cifar_10", (2, 3, 32, 32)),
        ("tiny_imagenet", (2, 3, 64, 64)),
        ("n_mnist", (2, 4, 2, 34, 34)),
    ],
)
def test_create_model_loads_it(name, shape):
    name = f"trevsnn_{name}"
    ours, theirs = (make(name, pretrained=True).eval() for make in (trevsnn.create_model, timm_create_model))
    x = torch.randn(shape)
    assert torch.equal(ours(x), theirs(x))
    assert trevsnn.create_model(name, pretrained=True).training == trevsnn.create_model(name).training
    assert trevsnn.create_model(name, pretrained=True, backprop="autograd").backprop == "autograd"
    assert trevsnn.create_model(name).config == ours.config


def test_networks_without_trained_weights_say_so():
    with pytest.raises(ValueError, match="there are no pretrained weights for trevsnn_tiny"):
        trevsnn.create_model("trevsnn_tiny", pretrained=True)


def test_the_networks_beside_the_package_are_those_it_knows():
    place = files("trevsnn_networks")
    assert sorted(folder.name for folder in place.iterdir() if folder.joinpath("config.json").is_file()) == list(APART)
    assert pretrained_folder("cifar-10") == place / "cifar-10"
    assert {f"trevsnn_{name.replace('-', '_')}" for name in APART} < set(PRESETS)


def test_networks_that_are_not_installed_are_named(tmp_path, monkeypatch, capsys):
    configured = trevsnn.create_model("trevsnn_cifar_10").pretrained_cfg
    monkeypatch.setitem(sys.modules, "trevsnn_networks", None)
    sentence = "the trained network cifar-10 is not installed: pip install trevsnn-networks, or in a clone of the repository pip install ./networks."
    with pytest.raises(UsageError) as refused:
        trevsnn.create_model("trevsnn_cifar_10", pretrained=True)
    assert str(refused.value) == sentence
    for command in (["predict", "cifar-10", "0.png"], ["export", "cifar-10"], ["train", "--init", "cifar-10"]):
        monkeypatch.chdir(tmp_path)
        assert main(command) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
    assert trevsnn.create_model("trevsnn_cifar_10").pretrained_cfg == configured
    assert pretrained_folder("digits") is not None


def test_the_wheel_stays_below_3_mb():
    """A wheel packs each file by deflate, with about 100 bytes of names and places for each."""
    held = [file for file in PRETRAINED.parent.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(len(zlib.compress(file.read_bytes(), 6)) + 300 for file in held) < 3_000_000
