"""``trevsnn measure`` of memory, speed and energy."""

import json

import pytest
import torch

from helpers import SMALL
from trevsnn.cli.main import main


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
    assert main([*arguments, "--modes", "exact", "--links", "all", "--alphas", "one", "--json"]) == 0
    (other,) = json.loads(capsys.readouterr().out)["rows"]
    assert other["parameters"] - row["parameters"] == 3 * (32 * 98 + 32 * 130 + 64 * 130 - 320)


def test_speed_command(capsys):
    arguments = ["measure", "speed", "--model", "trevsnn_nano", "--size", "8", "--batch", "2", "--repeats", "1"]
    assert main([*arguments, "--modes", "reversible"]) == 0
    assert "to autograd" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["backprop"] for row in rows] == ["exact", "reversible", "autograd"]


def test_a_step_in_float16_is_measured(capsys):
    arguments = [
        "--model",
        "trevsnn_nano",
        "--size",
        "8",
        "--batch",
        "2",
        "--modes",
        "exact",
        "--timesteps",
        "1",
        "--json",
    ]
    peaks = []
    for precision in ("bf16-mixed", "16-mixed"):
        assert main(["measure", "memory", *arguments, "--fake", "--precision", precision]) == 0
        (row,) = json.loads(capsys.readouterr().out)["rows"]
        assert row["precision"] == precision
        peaks.append(row["peak_total"])
    assert peaks[0] == peaks[1]
    assert main(["measure", "speed", *arguments, "--precision", "16-mixed", "--repeats", "1"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["backprop"], row["precision"]) for row in rows] == [(m, "16-mixed") for m in ("exact", "autograd")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["memory", "--model", "resnet"], "resnet"),
        (["memory", "--batch", "0"], "batch"),
        (["speed", "--precision", "8"], "precision"),
        (["memory", "--timesteps", "0"], "timesteps"),
        (["memory", "--fake", "--slice_bytes", "-1"], "slice"),
        (["memory", "--fake", "--keep", "4gb"], "Units are MB, GB, MiB, GiB."),
        (["memory", "--keep", "4GB", "--modes", "autograd"], "--keep is of the backward pass exact: add it to --modes"),
        (["speed", "--keep", "4GB", "--inference"], "--keep is of training steps: leave it out with --inference"),
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


def test_a_share_of_a_card_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["measure", "memory", "--fake", "--device", "cuda", "--keep", "30%"]) == 2
    assert "keep is '30%', a share of a CUDA device's memory, and this machine has none" in capsys.readouterr().err


def test_exact_keeps_and_the_other_modes_are_measured_beside(capsys):
    arguments = ["measure", "memory", "--model", "trevsnn_nano", "--size", "16", "--batch", "2"]
    kept = []
    for options in ([], ["--keep", "1GB"]):
        assert main([*arguments, *options, "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        kept.append({row["backprop"]: row["after_forward_total"] for row in rows})
    before, after = kept
    assert after.pop("exact") > before.pop("exact")
    assert after == before
    assert main([*arguments, "--keep", "1GB"]) == 0
    assert "32-true, cpu, exact keeping 1GB" in capsys.readouterr().out


def test_energy_command(tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--epochs", "2", "--batch_size", "256", "--model.timesteps", "2", "--run", str(run)]
    assert main(["train", *SMALL, *options]) == 0
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
