"""The spikes of one picture or recording through a network, as numbers and as a picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.files import read_inputs
from trevsnn.data.sets import load
from trevsnn.deploy.inference import Predictor
from trevsnn.deploy.spikes import SHOWN, shown_inputs, spike_maps, spikes_picture
from trevsnn.run.load import load_run


@pytest.fixture(scope="module")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("digit") / "3.png"
    Image.fromarray(load(DataConfig(), "val", 1).images[0]).save(file)
    return file


def test_spikes_are_those_whose_rates_the_network_gives(small_model, device):
    model = small_model(timesteps=3).eval()
    x = torch.randn(2, model.config.in_chans, 16, 16, device=device)
    spikes_LT = model.state_spikes(x)
    assert {float(value) for row in spikes_LT for spikes in row for value in spikes.unique()} == {0.0, 1.0}
    rates_LT = torch.tensor([[float(spikes.double().mean()) for spikes in row] for row in spikes_LT])
    torch.testing.assert_close(rates_LT, model.forward_with_rates(x)[1].states_LT.float().cpu())


def test_the_picture_shows_the_shares_of_channels_and_what_was_read(digit):
    model, config, about, _ = load_run(Path("digits"), "last")
    x = read_inputs([digit], config.data, about, config.model.timesteps)
    spikes_LT = model.state_spikes(x)
    drawn = [axes for axes in Predictor(Path("digits"), "last", "cpu").spikes(digit).axes if axes.images]
    timesteps, levels = config.model.timesteps, len(config.model.channels)
    assert len(drawn) == timesteps * levels + 1  # and the picture
    maps = [axes for axes in drawn if axes.get_title()]
    for number, axes in enumerate(maps):
        t, level = divmod(number, levels)
        expected_HW = spikes_LT[level][t][0].numpy().astype(float).mean(0)
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), expected_HW)
        assert axes.get_title().endswith(f"{100 * expected_HW.mean():.0f} %")
    (given,) = (axes for axes in drawn if not axes.get_title())
    pixels_HW = np.asarray(Image.open(digit).convert("L")) / 255
    np.testing.assert_allclose(np.asarray(given.images[0].get_array())[..., 0], pixels_HW, atol=1e-6)


def test_of_events_each_frame_is_shown_in_its_colours():
    _, config, about, _ = load_run(Path("n-mnist"), "last")
    x = torch.zeros(1, 2, 2, 1, 3)  # darker, then brighter
    x[0, 0, 0, 0, 0] = x[0, 1, 1, 0, 2] = 4.0
    first, second = shown_inputs(x, config.data, about)
    np.testing.assert_allclose(255 * first[0], [[0, 114, 178], [255] * 3, [255] * 3])
    np.testing.assert_allclose(255 * second[0], [[255] * 3, [255] * 3, [213, 94, 0]])
    assert all((frame == 1).all() for frame in shown_inputs(0 * x, config.data, about))


def test_of_many_timesteps_some_are_shown():
    maps_LT = [[np.full((2, 2), t / 100) for t in range(50)]]
    figure = spikes_picture(maps_LT, [np.zeros((2, 2, 3))], "x")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == SHOWN
    assert (titles[0], titles[-1]) == ("t = 0:  0 %", "t = 49:  49 %")


def test_the_command_writes_the_picture_of_one_file(digit, tmp_path, capsys):
    picture = tmp_path / "spikes.svg"
    assert main(["predict", "digits", str(digit), "--spikes", str(picture)]) == 0
    assert b"<svg" in picture.read_bytes()
    assert main(["predict", "digits", str(digit), str(digit), "--spikes", str(tmp_path / "two.png")]) == 2
    assert "--spikes draws one picture or recording, and 2 files are given" in capsys.readouterr().err
    assert not (tmp_path / "two.png").exists()


def test_spike_maps_are_means_over_channels():
    spikes = torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 0.0]], [[1.0, 1.0]]]])
    np.testing.assert_array_equal(spike_maps([[spikes]])[0][0], [[0.75, 0.25]])
