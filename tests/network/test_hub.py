"""Weights and config in the Hub's layout."""

import json

import pytest
import torch

from helpers import trained_like
from trevsnn import TRevSNN
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
