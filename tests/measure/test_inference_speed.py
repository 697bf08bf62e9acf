"""Time of inference, and firing rates that are set for it."""

import json
import sys

import pytest
import torch

from helpers import example, trained_like
from trevsnn.cli.main import main
from trevsnn.deploy.folded import fold
from trevsnn.measure.inference import set_firing_rates
from trevsnn.measure.operations import count_operations


@pytest.mark.filterwarnings("ignore")
def test_inference_is_timed_beside_resnet(capsys, tmp_path):
    speed = ["measure", "speed", "--model", "trevsnn_nano", "--timesteps", "1", "--size", "16"]
    picture = ["--picture", str(tmp_path / "time.png")]
    engines = ["--inference", "--engines", "eager", "onnx", "int8", "onnx-int8"]
    options = ["spikes", "--rates", "0.05", "--batch", "3", "--repeats", "1", "--json"]
    trained = ["--level_rates", "0.1", "0.07", "0.07", "0.01"]
    assert main([*speed, *picture, *engines, *options, *trained]) == 0
    rows = {row["engine"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    resnets = ["resnet18", "resnet18, onnx", "resnet18, onnx-int8"]
    assert list(rows) == ["eager", "onnx", "int8", "onnx-int8", "spikes, 5%", "spikes, 10/7/7/1%", *resnets]
    assert all(row["latency"] > 0 and row["batch"] == 3 for row in rows.values())
    assert [row["rate"] for row in rows.values()] == [None] * 4 + [0.05] + [None] * 4
    assert (tmp_path / "time.png").read_bytes().startswith(b"\x89PNG")
    assert main([*speed, *picture, *engines, *options, *trained[:-1]]) == 2
    assert "3 firing rates of levels; the network has 4" in capsys.readouterr().err
    assert main([*speed, *picture, *engines]) == 2
    assert "add spikes to --engines" in capsys.readouterr().err
    assert main([*speed, *picture]) == 2
    assert "--picture goes with --inference" in capsys.readouterr().err


@torch.no_grad()
def test_firing_rates_are_set():
    folded = fold(trained_like(channels=(8, 8), timesteps=2).float())
    x = example(folded.config, batch=16).float()
    set_firing_rates(folded, x, [0.1, 0.3])
    rates = {op.name: op.rate for op in count_operations(folded, x) if op.name.endswith("pw2")}
    right = {name: 0.1 if name.startswith("levels.0.") else 0.3 for name in rates}
    assert len(set(right.values())) == 2
    assert rates == pytest.approx(right, abs=0.01)


def test_a_missing_exporter_names_the_line_that_installs_it(monkeypatch, capsys):
    """Of ResNet-18, which stands beside networks of pictures; ours needs none."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    command = "measure speed --model trevsnn_nano --timesteps 1 --size 16 --inference --engines onnx"
    assert main(command.split()) == 2
    assert "onnxscript is not installed: pip install 'trevsnn[bench]'" in capsys.readouterr().err
