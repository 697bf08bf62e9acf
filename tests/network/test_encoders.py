"""The annealed slope of encoder and last head."""

import math

import pytest
import torch

from trevsnn.network.encoders import AnnealedLeakyReLU, slope_at


def test_slope_reaches_every_layer(small_model, device):
    model = small_model(in_chans=1)
    x = torch.randn(2, 1, 8, 8).to(device)
    linear = model(x)
    model.set_slope(0.25)
    slopes = [m.slope for m in model.modules() if isinstance(m, AnnealedLeakyReLU)]
    assert slopes == [0.25, 0.25]  # encoder and last head
    assert not torch.equal(model(x), linear)
    v = torch.tensor([-2.0, 3.0])
    assert model.encoder.stem.activation(v).tolist() == [-0.5, 3.0]
    assert [slope_at(e, 4) for e in (0, 2, 4, 9)] == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert slope_at(0, 0) == 1.0
    assert slope_at(1, 4) == pytest.approx((1 - math.cos(math.pi / 4)) / 2)
