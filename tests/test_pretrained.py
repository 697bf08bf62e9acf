"""The trained network that comes with the package."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from timm import create_model as timm_create_model

import trevsnn
from trevsnn.cli import main
from trevsnn.config import DataConfig
from trevsnn.data.sets import load


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


def test_create_model_loads_it():
    ours, theirs = (
        make("trevsnn_digits", pretrained=True).eval() for make in (trevsnn.create_model, timm_create_model)
    )
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(ours(x), theirs(x))
    assert trevsnn.create_model("trevsnn_digits", pretrained=True, backprop="autograd").backprop == "autograd"
    assert trevsnn.create_model("trevsnn_digits").config == ours.config
    with pytest.raises(ValueError, match="there are no pretrained weights for trevsnn_tiny"):
        trevsnn.create_model("trevsnn_tiny", pretrained=True)
