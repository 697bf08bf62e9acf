"""trevsnn measure: the tracker, what it says of the network, and the commands."""

import json

import pytest
import torch
from torch import nn

from trevsnn import TRevSNNConfig
from trevsnn.cli.main import main
from trevsnn.measure.memory import footprint, measure_memory, measure_slopes
from trevsnn.measure.speed import measure_speed, step_times
from trevsnn.measure.step import Step
from trevsnn.measure.tracker import LiveStorage
from trevsnn.reversible.memory_owner import hand_over, owner

SMALL = TRevSNNConfig(channels=(4, 8, 8, 12), num_classes=5, in_chans=1, encoder_stride=1)
ELEMENTS = 4 * 16**2 + 8 * 8**2 + 8 * 4**2 + 12 * 4**2  # of the states of one 16 x 16 picture


def test_storages_count_from_their_making_to_their_end():
    known = torch.zeros(100)
    with LiveStorage([known]) as tracker:
        with owner("states"):
            a = torch.zeros(10)
        view = a[2:].view(2, 4)
        with owner("codes"):
            b = known.add_(1).new_zeros(7, dtype=torch.uint8)
        assert {k: v for k, v in tracker.live().items() if v} == {"states": 40, "codes": 7}
        del a
        assert tracker.live()["states"] == 40  # the view holds it
        hand_over(view, "anchors")
        assert (tracker.live()["states"], tracker.live()["anchors"]) == (0, 40)
        assert sum(tracker.peak(without=[b]).values()) == 40
        del view
        assert sum(tracker.live().values()) == 7
    assert sum(tracker.peak().values()) == 47


def test_footprint_of_a_layer_whose_tensors_one_can_count():
    layer = nn.Linear(8, 4, bias=False)
    x = torch.randn(16, 8)
    found = footprint(layer, [x], lambda: layer(x).relu().sum())
    # The input; relu's output, which it keeps for its backward pass; the loss. The linear map's own output is gone.
    assert sum(found.after_forward.values()) == 4 * (16 * 8 + 16 * 4 + 1)
    assert found.after_forward["input"] == 512
    assert layer.weight.grad is not None


@pytest.mark.parametrize(
    ("mode", "precision"),
    [("exact", "32-true"), ("reversible", "32-true"), ("autograd", "32-true"), ("exact", "bf16-mixed")],
)
def test_fake_tensors_give_the_bytes_of_real_ones(mode, precision):
    config = TRevSNNConfig(**{**vars(SMALL), "backprop": mode, "timesteps": 3})
    step = Step(batch=3, size=16, precision=precision)
    real, fake = measure_memory(config, step), measure_memory(config, step, fake=True)
    for name in ("after_forward", "peak"):
        assert fake[name] == real[name]
    assert real["after_forward"]["input"] == 4 * 16**2 + 8  # and the class


def test_parts_are_what_they_are_called():
    found = measure_memory(SMALL, Step(batch=4, size=16))
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
    at_16 = measure_memory(config, Step(batch=2, size=16), fake=True)
    assert at_16["after_forward"]["anchors"] == 2 * 4 * (4 + 8) * 16**2


def test_slopes():
    found = measure_slopes(SMALL, Step(batch=4, size=16), modes=["exact", "reversible"], timesteps=[2, 3], fake=True)
    assert [(row["backprop"], row["timesteps"]) for row in found["rows"]] == [
        ("exact", 2), ("exact", 3), ("reversible", 2), ("reversible", 3),
    ]  # fmt: skip
    statistics = 2 * 4 * (8 + 8 + 12 + 4 + 8 + 8) / 4
    exact2, exact3, reversible2, reversible3 = found["rows"]
    assert reversible3["after_forward_total"] - reversible2["after_forward_total"] == statistics
    assert exact3["after_forward_total"] - exact2["after_forward_total"] == ELEMENTS / 4 + statistics
    assert found["slopes"]["exact"] == exact3["peak_total"] - exact2["peak_total"]
    assert 0 < found["slopes"]["reversible"] < found["slopes"]["exact"] < ELEMENTS


def test_a_graphics_card_one_does_not_have_has_its_slices():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    big = Step(batch=64, size=64, device="cuda", precision="bf16-mixed")
    config = TRevSNNConfig(**{**vars(SMALL), "timesteps": 1})
    card = measure_memory(config, big, fake=True)
    processor = measure_memory(config, Step(batch=64, size=64, precision="bf16-mixed"), fake=True)
    assert card["device"] == "cuda"
    assert card["peak"]["blocks"] > 1.9 * processor["peak"]["blocks"]
    assert card["peak"]["states"] == processor["peak"]["states"]


def test_speed_measures_side_by_side():
    rows = measure_speed(SMALL, Step(batch=2, size=16), modes=["exact"], repeats=2)
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


def test_memory_command(tmp_path, capsys):
    picture = tmp_path / "memory.png"
    arguments = ["measure", "memory", "--model", "trevsnn_nano", "--size", "16", "--batch", "2", "--fake"]
    assert main([*arguments, "--modes", "exact", "autograd", "--timesteps", "2", "1", "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "trevsnn_nano, 2 pictures of 16 x 16, 32-true, cpu, fake" in out
    assert "exact: +" in out
    assert "MB per picture and timestep" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--modes", "exact", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["timesteps"], row["fake"]) == (4, True)


def test_speed_command(capsys):
    arguments = ["measure", "speed", "--model", "trevsnn_nano", "--size", "8", "--batch", "2", "--repeats", "1"]
    assert main([*arguments, "--modes", "reversible"]) == 0
    assert "to autograd" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["backprop"] for row in rows] == ["exact", "reversible", "autograd"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["memory", "--model", "resnet"], "resnet"),
        (["memory", "--batch", "0"], "batch"),
        (["speed", "--precision", "8"], "precision"),
        (["memory", "--timesteps", "0"], "timesteps"),
        (["memory", "--fake", "--slice_bytes", "-1"], "slice"),
        (["power"], "power"),
    ],
)
def test_wrong_usage_is_said_in_a_sentence(options, message, capsys):
    assert main(["measure", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("trevsnn: error:")
    assert message in error
    assert error.count("\n") == 1


def test_a_device_that_is_not_there(capsys):
    if torch.cuda.is_available():
        pytest.skip("it is there")
    for what in ("memory", "speed"):
        assert main(["measure", what, "--device", "cuda"]) == 2
        assert (
            "no CUDA device on this machine: use --device cpu, or trevsnn measure memory --fake"
            in capsys.readouterr().err
        )


def test_step_says_what_it_cannot_be():
    with pytest.raises(ValueError, match="size is 0; it must be a positive integer"):
        Step(size=0)
    with pytest.raises(ValueError, match="precision is '8'; it must be one of 32-true"):
        Step(precision="8")
