"""Time of training steps, side by side."""

import pytest
import torch
from torch import nn

from trevsnn import TRevSNNConfig
from trevsnn.measure.speed import measure_speed, step_times
from trevsnn.measure.step import TrainingStep

SMALL = TRevSNNConfig(channels=(4, 8, 8, 12), num_classes=5, in_chans=1, encoder_stride=1)


def test_speed_measures_side_by_side():
    rows = measure_speed(SMALL, TrainingStep(batch=2, size=16), modes=["exact"], repeats=2)
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
