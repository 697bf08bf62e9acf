"""Spikes that folding changes, counted."""

import pytest
import torch

from helpers import example, trained_like
from trevsnn.deploy.differences import spike_differences
from trevsnn.deploy.folded import fold


@pytest.mark.parametrize("options", [{}, {"encoding": "grouped"}, {"links": "all"}])
def test_spikes_that_differ_are_counted_for_each_item(options):
    model = trained_like(timesteps=3, **options)
    folded = fold(model)
    x = example(model.config)
    folded.levels[0].steps[0].expand1["pw1"].bias[0] += 0.1
    differing, spikes = spike_differences(model, folded, x)
    assert 0 < differing.sum() < spikes
    assert len(set(differing.tolist())) > 1
    for item, count in zip(x, differing, strict=True):
        assert spike_differences(model, folded, item[None])[0].tolist() == [count]


def test_spikes_of_every_link_are_among_those_counted():
    counted = {}
    for links in ("adjacent", "all"):
        model = trained_like(links=links, channels=(6, 8, 8, 10))
        counted[links] = spike_differences(model, fold(model), example(model.config))[1]
    of_level_2, of_level_3 = 8 * 3 * 3, 10 * 3 * 3  # of a picture of 12 x 12
    assert counted["all"] - counted["adjacent"] == 6 * (of_level_2 + 2 * of_level_3)


def test_the_head_s_spikes_are_counted_for_every_timestep_that_it_reads():
    model = trained_like(input="event", readout="mean", timesteps=3)
    folded = fold(model)
    x = example(model.config)
    folded.head.pool = lambda state: torch.ones(state.shape[:2]).double()  # all of them on, and no other differs
    differing, spikes = spike_differences(model, folded, x)
    last = trained_like(input="event", timesteps=3)
    neurons = len(x) * 10 * 6 * 6
    assert spikes - spike_differences(last, fold(last), x)[1] == 2 * neurons
    silent = 1 - model.forward_with_rates(x)[1].states_LT[-1]
    assert (silent > 0).all()
    assert int(differing.sum()) == round(float(silent.sum()) * neurons)


def test_the_head_s_spikes_that_differ_are_counted():
    model = trained_like(timesteps=1)
    folded = fold(model)
    x = example(model.config)
    rate = float(model.forward_with_rates(x)[1].by_level()[-1][0])
    folded.levels[-1].shared.dw2.bias += 1e6  # after which nothing but the head reads that level: all its spikes are on
    differing, _ = spike_differences(model, folded, x)
    silent = (1 - rate) * len(x) * model.config.channels[-1] * 6 * 6
    assert silent > 0
    assert int(differing.sum()) == round(silent)
