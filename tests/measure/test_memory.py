"""Training memory: what the tracker says of the network."""

import pytest
import torch
from torch import nn

from trevsnn import TRevSNNConfig
from trevsnn.measure.memory import footprint, measure_memory, measure_slopes
from trevsnn.measure.step import TrainingStep

SMALL = TRevSNNConfig(channels=(4, 8, 8, 12), num_classes=5, in_chans=1, encoder_stride=1)
ELEMENTS = 4 * 16**2 + 8 * 8**2 + 8 * 4**2 + 12 * 4**2  # of the states of one 16 x 16 picture


def test_footprint_of_a_layer_whose_tensors_one_can_count():
    layer = nn.Linear(8, 4, bias=False)
    x = torch.randn(16, 8)
    found = footprint(layer, [x], lambda: layer(x).relu().sum())
    # The input; relu's output, which it keeps for its backward pass; the loss. The linear map's own output is gone.
    assert sum(found.after_forward.values()) == 4 * (16 * 8 + 16 * 4 + 1)
    assert found.after_forward["input"] == 512
    assert layer.weight.grad is not None


@pytest.mark.parametrize(
    ("mode", "precision", "options"),
    [
        ("exact", "32-true", {}), ("reversible", "32-true", {}), ("autograd", "32-true", {}), ("exact", "bf16-mixed", {}),
        ("exact", "16-mixed", {"links": "all"}), ("autograd", "16-mixed", {"alphas": "one"}),
    ],
)  # fmt: skip
def test_fake_tensors_give_the_bytes_of_real_ones(mode, precision, options):
    config = TRevSNNConfig(**{**vars(SMALL), "channels": (4, 8, 8), "backprop": mode, "timesteps": 2, **options})
    step = TrainingStep(batch=3, size=16, precision=precision)
    real, fake = measure_memory(config, step), measure_memory(config, step, fake=True)
    for name in ("after_forward", "peak"):
        assert fake[name] == real[name]
    assert real["after_forward"]["input"] == 4 * 16**2 + 8  # and the class


def test_parts_are_what_they_are_called():
    found = measure_memory(SMALL, TrainingStep(batch=4, size=16))
    kept = found["after_forward"]
    statistics = 2 * 4 * (8 + 8 + 12 + 3 * (4 + 8 + 8 + 8 + 8 + 12))  # all links of four steps, for the batch
    assert kept["codes"] == 3 * ELEMENTS / 4
    assert kept["encoder"] == 4 * 4 * 16**2
    assert 4 * ELEMENTS <= kept["states"] < 4 * ELEMENTS + 16
    assert kept["blocks"] == statistics / 4
    assert kept["adjoints"] == kept["anchors"] == 0
    assert found["peak"]["adjoints"] == 4 * ELEMENTS + 4 * 4 * 16**2  # of the states and of the encoder's map
    assert found["peak_total"] == sum(found["peak"].values())


def test_anchors_are_counted_where_alpha_calls_for_them():
    config = TRevSNNConfig(channels=(4, 8), timesteps=16, num_classes=5, in_chans=1, encoder_stride=1)
    at_16 = measure_memory(config, TrainingStep(batch=2, size=16))
    assert at_16["after_forward"]["anchors"] == 2 * 4 * (4 + 8) * 16**2


def test_slopes():
    found = measure_slopes(SMALL, TrainingStep(batch=4, size=16), modes=["exact", "reversible"], timesteps=[2, 3])
    assert [(row["backprop"], row["timesteps"]) for row in found["rows"]] == [
        ("exact", 2), ("exact", 3), ("reversible", 2), ("reversible", 3),
    ]  # fmt: skip
    # Whatever the batch, mean and variance of each link, and each level's bounded alpha.
    channels = (2 * 4 * (8 + 8 + 12 + 4 + 8 + 8) + 4 * (4 + 8 + 8 + 12)) / 4
    exact2, exact3, reversible2, reversible3 = found["rows"]
    assert reversible3["after_forward_total"] - reversible2["after_forward_total"] == channels
    assert exact3["after_forward_total"] - exact2["after_forward_total"] == ELEMENTS / 4 + channels
    assert found["slopes"]["exact"] == exact3["peak_total"] - exact2["peak_total"]
    assert 0 < found["slopes"]["reversible"] < found["slopes"]["exact"] < ELEMENTS


def test_a_graphics_card_one_does_not_have_has_its_slices():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    big = TrainingStep(batch=64, size=64, device="cuda", precision="bf16-mixed")
    config = TRevSNNConfig(channels=(4, 8), timesteps=1, num_classes=5, in_chans=1, encoder_stride=1)
    card = measure_memory(config, big, fake=True)
    processor = measure_memory(config, TrainingStep(batch=64, size=64, precision="bf16-mixed"), fake=True)
    assert card["device"] == "cuda"
    assert card["peak"]["blocks"] > 1.9 * processor["peak"]["blocks"]
    assert card["peak"]["states"] == processor["peak"]["states"]
