"""Sizes that are one number or two, on the command line, in YAML and from Python."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trevsnn.cli.main import build_parser, main
from trevsnn.data.config import DataConfig
from trevsnn.run.config import parse_config, to_yaml
from trevsnn.sizes import join_sizes, plain_size


@given(st.integers(1, 999), st.integers(1, 999))
def test_a_size_is_one_number_where_it_is_square(height, width):
    config = DataConfig(image_size=[height, width])
    assert config.size_HW == (height, width)
    assert config.image_size == (height if height == width else (height, width))
    assert config == DataConfig(image_size=config.image_size)


@pytest.mark.parametrize("size", [(), (1, 2, 3), 1.5, "64", (True, 2), None, (8, 2.0)])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(
        ValueError, match=r"data\.image_size is .*; it must be the side of a square, or height and width"
    ):
        DataConfig(image_size=size)
    with pytest.raises(ValueError, match=r"size is 0; it must be at least 1"):
        plain_size("size", (4, 0))


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["96", "160"], (96, 160)), (["[96,160]"], (96, 160)), (["64"], 64), (["64", "64"], 64), (["[64, 64]"], 64),
        (["64", "--data.flip", "true"], 64),
    ],
)  # fmt: skip
def test_the_command_line_takes_one_word_or_two(words, size):
    options = ["--data.image_size", *words]
    assert parse_config(options).data.image_size == size
    given = build_parser().parse_args(["train", *options], defaults=False).train.data.image_size
    assert DataConfig(image_size=given).image_size == size


def test_a_size_takes_no_file_for_its_width():
    assert join_sizes(["--size", "64", "run", "7"]) == ["--size", "64", "run", "7"]
    assert join_sizes(["--data.sensor", "240", "180", "--epochs", "1"]) == [
        "--data.sensor",
        "[240,180]",
        "--epochs",
        "1",
    ]
    assert join_sizes(["--size", "64", "32", "7", "--size"]) == ["--size", "[64,32]", "7", "--size"]


@pytest.mark.parametrize("size", [(12, 20), 12])
def test_yaml_gives_the_same_config(tmp_path, size):
    config = parse_config(["--data.image_size", json.dumps(size)])
    text = to_yaml(config)
    assert ("image_size: 12\n" in text) == (size == 12)
    (tmp_path / "config.yaml").write_text(text)
    assert parse_config([f"--config={tmp_path / 'config.yaml'}"]) == config


def test_wrong_sizes_are_wrong_usage(capsys):
    assert main(["train", "--data.image_size", "96", "0"]) == 2
    assert "data.image_size is 0; it must be at least 1" in capsys.readouterr().err
    assert main(["train", "--data.image_size", "[1,2,3]"]) == 2
    assert "image_size" in capsys.readouterr().err


def test_memory_and_speed_are_measured_at_any_size(capsys):
    common = ["--model", "trevsnn_nano", "--batch", "2", "--modes", "autograd", "--timesteps", "1"]
    peaks = []
    for size in (["16", "24"], ["24", "16"], ["16"]):
        assert main(["measure", "memory", *common, "--fake", "--size", *size, "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)["rows"]
        assert row["size"] == ([int(side) for side in size] if len(size) == 2 else 16)
        peaks.append(row["peak"]["input"])
    assert peaks == [3 * 16 * 24 * 4 + 8, 3 * 16 * 24 * 4 + 8, 3 * 16 * 16 * 4 + 8]
    assert main(["measure", "memory", *common, "--fake", "--size", "9", "11"]) == 0
    assert "2 pictures of 9 x 11" in capsys.readouterr().out
    assert main(["measure", "speed", *common, "--size", "9", "11", "--repeats", "1"]) == 0
    assert "9 x 11" in capsys.readouterr().out


def test_networks_learn_the_same_at_any_size_in_every_mode():
    from conftest import gradients, worst
    from helpers import loss_of, trained_like

    for options, shape in (({}, (3, 3, 11, 18)), ({"input": "event"}, (3, 2, 2, 9, 5))):
        model = trained_like(**options)
        model.train()
        x, target = torch.randn(shape, dtype=torch.float64), torch.tensor([0, 3, 1])
        found = {}
        for mode in ("autograd", "exact", "reversible"):
            model.set_backprop(mode)
            found[mode] = gradients(model, loss_of(model, x, target))
        assert worst(found["exact"], found["autograd"]) < 1e-12
        assert worst(found["reversible"], found["autograd"]) < 1e-6
