"""What a network begins with, and the potentials and firing rates that follow from it on real pictures and recordings."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from start import fresh
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.data.config import DataConfig
from trevsnn.data.loading import calibration_items
from trevsnn.network.blocks import Expand
from trevsnn.network.start import RATE

#: The stated band of a fresh network's firing rates, states and hidden neurons alike (docs/learn/start.md).
LOWEST, HIGHEST = 0.03, 0.40


@pytest.fixture(scope="module")
def digits():
    return calibration_items(DataConfig(name="digits"), 1, 128)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("timesteps", [1, 2, 4, 8, 16])
def test_a_fresh_network_fires_within_the_band_on_real_pictures(digits, timesteps, kernel_size):
    torch.manual_seed(timesteps)
    model = TRevSNN(
        TRevSNNConfig(channels=(24, 48, 64), timesteps=timesteps, kernel_size=kernel_size, num_classes=10, in_chans=1, encoder_stride=1)
    )  # fmt: skip
    for rates in fresh(model, digits)[1]:
        assert all(LOWEST < rate < HIGHEST for rate in rates), rates


@pytest.mark.parametrize("timesteps", [1, 4, 16])
def test_a_fresh_network_fires_within_the_band_on_sparse_frames(timesteps):
    """Frames as N-MNIST's are: seven pixels of a hundred have events, of mean count 1."""
    torch.manual_seed(0)
    frames = (torch.rand(32, timesteps, 2, 17, 17) < 0.07) * torch.rand(32, timesteps, 2, 17, 17) * 2
    model = TRevSNN(TRevSNNConfig(channels=(24, 48, 64), timesteps=timesteps, num_classes=10, input="event"))
    for level, rates in enumerate(fresh(model, frames)[1]):
        assert all((0.005 if level == 0 else LOWEST) < rate < HIGHEST for rate in rates), rates


@pytest.mark.parametrize(("alphas", "links"), [("learned", "adjacent"), ("learned", "all"), ("one", "adjacent")])
@pytest.mark.parametrize("timesteps", [1, 4, 16])
def test_the_last_states_have_half_a_unit_of_deviation(digits, timesteps, alphas, links):
    torch.manual_seed(1)
    model = TRevSNN(
        TRevSNNConfig(channels=(24, 64, 128), timesteps=timesteps, num_classes=10, in_chans=1, encoder_stride=1, alphas=alphas, links=links)
    )  # fmt: skip
    expected = 0.5 * timesteps**0.25 if alphas == "one" else 0.5
    deviations, _ = fresh(model, digits)
    assert deviations[1:] == pytest.approx([expected] * 2, rel=0.15)  # the lowest one has the picture's own contrast


@given(channels=st.integers(48, 160), side=st.sampled_from([3, 5, 7]), seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_hidden_potentials_have_half_a_unit_of_deviation(channels, side, seed):
    torch.manual_seed(seed)
    model = TRevSNN(
        TRevSNNConfig(channels=(channels, channels), timesteps=1, kernel_size=side, num_classes=2, in_chans=1)
    )
    expand = next(module for module in model.modules() if isinstance(module, Expand))
    spikes = (torch.rand(4, channels, 16, 16) < RATE).float()
    with torch.no_grad():
        inner = slice(side // 2, 16 - side // 2)  # at the border part of the kernel sees zeros
        depthwise = expand.dw1(spikes)[:, :, inner, inner]
        hidden = expand.pw1(expand.dw1(spikes))[:, :, inner, inner]
    assert float(depthwise.square().mean()) == pytest.approx(1, rel=0.35)
    assert float(hidden.std()) == pytest.approx(0.5, rel=0.2)


def test_initial_values():
    torch.manual_seed(0)
    model = TRevSNN(TRevSNNConfig(channels=(64, 128, 128), timesteps=2, kernel_size=5, links="all"))
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        if name.endswith("bias"):
            assert not value.any(), name
        elif name.endswith("bn.weight"):
            gain = 0.5 if ".steps.0." in name else 0.5 * math.sqrt(0.75)
            assert value.tolist() == pytest.approx([gain if ".below." in name else gain / 10] * len(value)), name
        elif name.endswith("dw1.weight"):
            assert float(value.std()) == pytest.approx(1 / (5 * math.sqrt(0.158655)), rel=0.06), name
        elif name.endswith("dw2.weight"):
            assert float(value.std()) == pytest.approx(0.02, rel=0.06), name
        elif name.endswith("gain"):
            expected = 0.5 if "pw1" in name else 8.0 if "classifier." in name or "classifier1" in name else 1.0
            assert value.unique().tolist() == [expected], name
        elif "alphas" in name or name.endswith("gamma"):
            assert value.unique().tolist() == [0.5 if "alphas" in name else 1.0], name


def test_without_alphas_inputs_begin_smaller_and_states_end_larger():
    model = TRevSNN(TRevSNNConfig(channels=(8, 16), timesteps=4, alphas="one"))
    gains = [step.below.bn.weight.unique().tolist() for step in model.levels[1].steps]
    assert gains == [[pytest.approx(0.5 / math.sqrt(2))]] * 4


def test_the_rate_is_that_of_a_normal_variable_above_its_deviation():
    assert pytest.approx(0.15865525, abs=1e-7) == RATE
    assert float(np.mean(np.random.default_rng(0).normal(0, 0.5, 10**6) >= 0.5)) == pytest.approx(RATE, abs=2e-3)
