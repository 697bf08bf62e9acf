"""Weights and config in the Hub's layout."""

import json
import os

import pytest
import torch

from helpers import trained_like
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.errors import RunError


@pytest.fixture
def saved(tmp_path):
    model = trained_like(slope=0.25)
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def test_a_saved_model_comes_back(saved):
    model, folder = saved
    config = json.loads((folder / "config.json").read_text())
    assert (config["channels"], config["slope"]) == ([6, 8, 10], 0.25)
    back = TRevSNN.from_pretrained(folder, backprop="autograd").double()
    assert (back.config.backprop, back.training) == ("autograd", False)
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    assert torch.equal(back(x), model(x))
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}


def test_a_config_of_before_there_was_a_readout_reads_the_last_state(tmp_path):
    model = trained_like(input="event")
    for readout in ("mean", "last"):
        model = trained_like(input="event", readout=readout)
        model.save_pretrained(tmp_path)
        assert TRevSNN.from_pretrained(tmp_path).config.readout == readout
    config = json.loads((tmp_path / "config.json").read_text())
    del config["readout"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    back = TRevSNN.from_pretrained(tmp_path).double()
    x = torch.randn(2, 2, 2, 12, 12, dtype=torch.float64)
    assert back.config.readout == "last"
    assert torch.equal(back(x), model(x))


def test_a_damaged_config_is_said(saved):
    _, folder = saved
    (folder / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json is damaged \(.*\): export the model again"):
        TRevSNN.from_pretrained(folder)


def test_weights_are_never_unpickled(saved):
    model, folder = saved
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(RunError, match=r"model\.safetensors is missing or damaged"):
        TRevSNN.from_pretrained(folder)


@pytest.mark.parametrize(
    ("faulty", "said"),
    [
        (["heads.0.classifier.gain"], r"heads\.0\.classifier\.gain holds NaN or infinite numbers in .*model\.safetensors: use"),
        (["levels.1.steps.0.below.bn.running_var", "levels.0.alphas.0"], r"levels\.0\.alphas\.0 and 1 more weights hold NaN"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(saved, faulty, said, value):
    model, folder = saved
    for name in faulty:
        model.state_dict()[name].flatten()[-1].fill_(value)
    model.save_pretrained(folder)
    with pytest.raises(RunError, match=said):
        TRevSNN.from_pretrained(folder)


@pytest.mark.parametrize("change", [{"encoder_stride": 2}, {"timesteps": 3}, {"links": "all"}])
def test_weights_are_not_taken_for_another_network(saved, change):
    _, folder = saved
    name, value = next(iter(change.items()))
    with pytest.raises(
        ValueError, match=rf"^{name} is '?{value}'?, but .*model\.safetensors was trained with .*: leave it out"
    ):
        TRevSNN.from_pretrained(folder, **change)
    assert (
        TRevSNN.from_pretrained(folder, timesteps=2, channels=[6, 8, 10], slice_bytes=1000).config.slice_bytes == 1000
    )


@pytest.mark.parametrize("slope", [float("nan"), None, "x", -0.5, 2])
def test_a_slope_that_is_none_is_refused(saved, slope):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"slope": slope}))
    with pytest.raises(RunError, match=r"config\.json is damaged \(.*\): export the model again"):
        TRevSNN.from_pretrained(folder)


def test_a_config_that_is_no_object_is_refused(saved):
    _, folder = saved
    (folder / "config.json").write_text("[]")
    with pytest.raises(RunError, match=r"config\.json is damaged \(it is no object\)"):
        TRevSNN.from_pretrained(folder)


def test_saving_replaces_links_and_never_leaves_a_folder_without_its_config(tmp_path, monkeypatch):
    model = TRevSNN(TRevSNNConfig(channels=(4, 6), timesteps=1, num_classes=3, encoder_stride=1)).eval()
    mine = tmp_path / "mine"
    mine.write_text("mine")
    folder = tmp_path / "saved"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (folder / name).symlink_to(mine)
    model.save_pretrained(folder)
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir() if not path.is_symlink()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert TRevSNN.from_pretrained(folder).config == model.config
    before = (folder / "config.json").read_bytes()
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RunError, match="make room"):
        model.save_pretrained(folder)
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_links_are_followed_in_the_hub_s_own_cache_alone(tmp_path, name):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1"
    TRevSNN(TRevSNNConfig(channels=(4, 6), timesteps=1, num_classes=3, encoder_stride=1)).save_pretrained(snapshot)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    (snapshot / name).rename(blobs / "x")
    (snapshot / name).symlink_to("../../blobs/x")
    assert TRevSNN.from_pretrained(snapshot).config.channels == (4, 6)
    blobs.rename(tmp_path / "outside")
    (snapshot / name).unlink()
    (snapshot / name).symlink_to(tmp_path / "outside" / "x")
    with pytest.raises(RunError, match="is a link, which is not followed"):
        TRevSNN.from_pretrained(snapshot)
