"""Operations counted, against numbers one can work out by hand, and SpikingJelly's counter where it is installed."""

import json

import pytest
import torch
from torch import nn

from helpers import SMALL, example, trained_like
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.cli.main import main
from trevsnn.deploy.folded import fold
from trevsnn.measure.energy import merged
from trevsnn.measure.inference import set_firing_rates
from trevsnn.measure.operations import Operation, count_operations, energy_joules


def test_a_spike_counts_for_every_weight_it_reaches():
    conv = nn.Conv2d(2, 5, 3, padding=1, bias=False)
    x = torch.zeros(1, 2, 4, 4)
    x[0, 0, 0, 0] = 1  # a corner: four outputs see it
    x[0, 1, 2, 2] = 1  # the middle: nine
    (found,) = count_operations(conv, x)
    assert (found.macs, found.spiking, found.synops) == (5 * 16 * 2 * 9, True, 5 * (4 + 9))
    assert found.rate == 2 / 32


def test_strides_groups_products_and_numbers():
    x = (torch.arange(2 * 4 * 6 * 6).view(2, 4, 6, 6) % 3 == 0).float()
    (depthwise,) = count_operations(nn.Conv2d(4, 4, 3, 2, 1, groups=4), x)
    reached = torch.conv2d(x, torch.ones(4, 1, 3, 3), None, 2, 1, 1, 4).sum()
    assert (depthwise.macs, depthwise.synops) == (2 * 4 * 9 * 9, int(reached))
    (linear,) = count_operations(nn.Linear(6, 3), x)
    assert (linear.macs, linear.synops) == (2 * 4 * 6 * 6 * 3, int(x.sum()) * 3)
    (numbers,) = count_operations(nn.Conv2d(4, 3, 1), x + 0.5)
    assert (numbers.macs, numbers.spiking, numbers.synops, numbers.rate) == (2 * 3 * 36 * 4, False, 0, 1.0)


def test_energy_by_hand():
    operations = [Operation("a", macs=1000, spiking=False), Operation("b", macs=500, synops=70)]
    assert energy_joules(operations, 4.6, 0.9) == pytest.approx(1e-12 * (4600 + 63))


def test_the_merged_convention_takes_two_convolutions_as_one():
    operations = [
        Operation("s.dw1", macs=90, synops=20, spikes=25, inputs=100),
        Operation("s.pw1", macs=400, spiking=False),
        Operation("s.pw2", macs=400, synops=40, spikes=10, inputs=100),
        Operation("s.dw2", macs=90, spiking=False),
        Operation("head", macs=7, spiking=False),
    ]
    counted = {op.name: op for op in merged(operations)}
    assert (counted["s.pw1"].spiking, counted["s.pw1"].synops) == (True, 100)
    assert (counted["s.dw2"].spiking, counted["s.dw2"].synops) == (True, 9)
    assert not counted["head"].spiking


def test_every_convolution_of_the_network_is_counted_and_blocks_are_given_spikes():
    model = trained_like(channels=(4, 6), timesteps=2).float()
    x = example(model.config).float()
    found = {op.name: op for op in count_operations(fold(model), x)}
    convolutions = {name for name, m in fold(model).named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert set(found) == convolutions
    for name, op in found.items():
        assert op.spiking == (
            name.rpartition(".")[2] in ("dw1", "pw2", "above")
            or (name.startswith("levels.1.steps") and name.endswith("below"))
        ), name
    block = 6 * 4 * 16 * 12 * 12  # of a pointwise convolution of level 0, for the batch
    assert found["levels.0.steps.1.expand1.pw1"].macs == block
    assert found["levels.0.shared.pw2"].macs == 2 * block


@pytest.mark.filterwarnings("ignore")
def test_spikingjelly_counts_the_same():
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
    config = TRevSNNConfig(channels=(8, 12, 16), timesteps=2, num_classes=4)
    folded = fold(TRevSNN(config).eval())
    x = torch.randn(2, 3, 32, 32)
    synops, macs = counters.SynOpCounter(), counters.MACCounter(extra_rules={torch.ops.aten.mul.Tensor: lambda *_: 0})
    with torch.no_grad(), counters.DispatchCounterMode([synops, macs]):
        folded(x)
    found = count_operations(folded, x)
    assert sum(op.synops for op in found) == pytest.approx(synops.get_total(), rel=0.01)
    assert sum(op.macs for op in found if not op.spiking) == pytest.approx(macs.get_total(), rel=0.01)


def test_the_commands(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", *SMALL, "--epochs", "2", "--run", str(run)]) == 0
    capsys.readouterr()
    picture = tmp_path / "rates.png"
    assert main(["measure", "energy", str(run), "--count", "8", "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "levels.0.steps.0.expand1.dw1" in out
    assert "4.6 pJ a MAC of a layer whose input is numbers" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (
        main(["measure", "energy", str(run), "--count", "8", "--pj_per_mac", "2", "--pj_per_synop", "1", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    computed = found["as_computed"]
    assert computed["joules"] == pytest.approx(1e-12 * (2 * computed["macs"] + computed["synops"]))
    assert found["merged"]["macs"] < computed["macs"] < found["macs"]
    assert all(0 < rate < 1 for row in found["rates_LT"] for rate in row)
    assert main(["measure", "energy", str(tmp_path)]) == 1
    assert main(["measure", "energy", str(run), "--count", "0"]) == 2


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
