"""Time of training steps, side by side."""

import pytest
import torch
from torch import nn

from trevsnn import TRevSNNConfig
from trevsnn.measure.speed import measure_speed, step_times
from trevsnn.measure.step import TrainingStep

SMALL = TRevSNNConfig(channels=(4, 8, 8, 12), num_classes=5, in_chans=1, encoder_stride=1)


def test_speed_measures_side_by_side():
    rows = measure_speed(SMALL, TrainingStep(batch=2, size=16), modes=["exact"], repeats=1)
    assert [row["backprop"] for row in rows] == ["exact", "autograd"]
    exact, autograd = rows
    assert autograd["ratio_to_autograd"] == 1
    assert exact["ratio_to_autograd"] == pytest.approx(exact["step"] / autograd["step"])
    assert exact["pictures_per_second"] == pytest.approx(2 / exact["step"])
    assert min(exact["forward"], exact["backward"]) > 0


def test_steps_take_turns():
    turns = []
    layer = nn.Linear(2, 1)

    def loss(name):
        turns.append(name)
        return layer(torch.ones(1, 2)).sum()

    step_times({"a": (layer, lambda: loss("a")), "b": (layer, lambda: loss("b"))}, repeats=2)
    assert turns == ["a", "b"] * 3


def test_a_ratio_is_of_steps_of_the_same_turn(monkeypatch):
    """In the last turn the machine is slow during one of the two; of seconds 1, 2, 9 and 2, 4, 3 the medians' quotient is 2/3."""
    layer = nn.Linear(2, 1)
    step = layer, lambda: layer(torch.ones(1, 2)).sum()
    clock = [0.0] * 4  # the turn that is not counted, whose end is not read
    for a, b in ((1, 2), (2, 4), (9, 3)):
        for length in (a, b):
            start = clock[-1]
            clock += [start, start + length / 4, start + length]
    monkeypatch.setattr("trevsnn.measure.speed._now", lambda device: next(times))
    times = iter(clock)
    measured = step_times({"a": step, "b": step}, repeats=3, beside="b")
    assert measured["a"]["ratio"] == 0.5
    assert measured["b"]["ratio"] == 1
    assert (measured["a"]["step"], measured["b"]["step"]) == (2, 3)
