"""trevsnn export: every form of a trained network against the network, on real items."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers import SMALL, trained_like
from trevsnn import TRevSNN
from trevsnn.cli.main import main
from trevsnn.deploy.fingerprint import fingerprint_of
from trevsnn.deploy.folded import fold
from trevsnn.deploy.onnx.float32 import export_float32
from trevsnn.deploy.onnx.int8 import export_integer
from trevsnn.errors import RunError
from trevsnn.network.packing import pack
from trevsnn.run.load import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on digits."""
    folder = tmp_path_factory.mktemp("export") / "run"
    assert main(["train", *SMALL, "--seed", "1", "--run", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def exported(run):
    """That run, exported in every form."""
    out = run.parent / "exported"
    assert main(["export", str(run), "--out", str(out)]) == 0
    return out


def test_what_lies_here_counts_before_a_network_that_comes_trained(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "digits")
    assert main(["export", "digits", "--out", "n-mnist", "--formats", "onnx"]) == 0
    figures = json.loads((tmp_path / "n-mnist" / "about.json").read_text())["figures"]
    assert figures["last_accuracy"] == json.loads((run / "summary.json").read_text())["last_accuracy"]
    accuracies = []
    for options in (["digits"], ["n-mnist", "--engine", "onnx"]):
        capsys.readouterr()
        assert main(["evaluate", *options, "--json"]) == 0
        accuracies.append(json.loads(capsys.readouterr().out)["accuracy"])
    assert accuracies == [figures["last_accuracy"]] * 2


def test_an_export_holds_every_form_and_its_card_the_figures(run, exported):
    assert {file.name for file in exported.iterdir()} == {
        "README.md", "about.json", "config.json", "config.yaml", "model-int8.onnx", "model-int8.safetensors", "model.onnx",
        "model.pt2", "model.safetensors",
    }  # fmt: skip
    assert len({file.stat().st_mode for file in exported.iterdir()}) == 1  # whoever may read one may read all
    report = json.loads((exported / "about.json").read_text())
    rows = {row["name"]: row for row in report["comparisons"]}
    assert set(rows) == {"folded", "onnx", "torch.export", "8-bit weights", "8-bit arithmetic"}
    for name in ("folded", "onnx", "torch.export"):
        assert rows[name]["largest"] < 1e-5
        assert rows[name]["same_class"] == rows[name]["items"] == 256
    assert report["spikes"]["differing"] <= 1e-5 * report["spikes"]["all"]
    assert report["spikes"]["items"] <= report["spikes"]["differing"]
    assert report["spikes"]["largest_without"] < 1e-5
    card = (exported / "README.md").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert f"Held out: {summary['last_accuracy']:.2%} after the last epoch" in card
    assert "test: none" in card


def test_a_compact_export_is_the_rounded_network(run, exported):
    out = run.parent / "compact"
    assert main(["export", str(run), "--out", str(out), "--compact", "--formats", "onnx"]) == 0
    stored, weights = (load_file(folder / "model.safetensors") for folder in (out, exported))
    expected = pack(weights)
    assert stored.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in stored.items())
    rows = {row["name"]: row for row in json.loads((out / "about.json").read_text())["comparisons"]}
    assert set(rows) == {"folded", "onnx", "weights before rounding"}
    assert rows["weights before rounding"]["largest"] > 1e-3
    assert rows["onnx"]["same_class"] == 256
    assert "stored in 8 bits" in (out / "README.md").read_text()
    assert "stored in 8 bits" not in (exported / "README.md").read_text()
    assert main(["evaluate", str(out), "--engine", "onnx"]) == 0  # whose fingerprint is that of the rounded weights


def test_an_export_is_the_run_s_network(run, exported, capsys):
    ours, theirs = load_run(run, "last"), load_run(exported, "last")
    assert ours[1:] == theirs[1:]
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(ours[0](x), theirs[0](x))
    assert torch.equal(TRevSNN.from_pretrained(exported, backprop="autograd")(x), ours[0](x))
    results = []
    for folder in (run, exported):
        capsys.readouterr()
        assert main(["evaluate", str(folder), "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0]["accuracy"] == results[1]["accuracy"]


def test_an_export_of_an_export_is_the_same(exported, tmp_path):
    assert main(["export", str(exported), "--out", str(tmp_path / "again"), "--formats"]) == 0
    for name in ("config.json", "config.yaml", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes()
    card, _, script = (exported / "README.md").read_text().partition("Without this package and PyTorch")
    assert "onnxruntime" in script
    lines = card.rstrip().splitlines()
    assert [line for line in lines if "onnx" not in line and "8-bit" not in line and "torch.export" not in line] == (
        tmp_path / "again" / "README.md"
    ).read_text().splitlines()


def test_the_8_bit_file_is_a_quarter_as_large(exported):
    tensors = load_file(exported / "model-int8.safetensors")
    weights = sum(tensor.numel() for name, tensor in tensors.items() if name.endswith("weight"))
    assert weights > 0.8 * sum(tensor.numel() for tensor in tensors.values())
    assert all(tensor.dtype == torch.int8 for name, tensor in tensors.items() if name.endswith("weight"))


def test_evaluate_measures_what_an_engine_gives(exported, capsys):
    found = {}
    for engine in ("eager", "onnx", "int8", "onnx-int8", "spikes"):
        assert main(["evaluate", str(exported), "--engine", engine, "--json"]) == 0
        found[engine] = json.loads(capsys.readouterr().out)
    assert found["onnx"]["loss"] == pytest.approx(found["eager"]["loss"], rel=1e-5)
    assert found["onnx"]["accuracy"] == found["eager"]["accuracy"]
    for name in ("int8", "onnx-int8"):
        assert found[name]["loss"] != found["eager"]["loss"]
        assert found[name]["loss"] == pytest.approx(found["eager"]["loss"], rel=0.2)
    assert found["spikes"]["loss"] == pytest.approx(found["onnx-int8"]["loss"], rel=1e-6)
    assert found["spikes"]["accuracy"] == found["onnx-int8"]["accuracy"]
    assert [len(row["firing_rates"]) for row in found.values()] == [2, 0, 0, 0, 0]
    assert main(["evaluate", str(exported), "--engine", "folded"]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert main(["evaluate", "digits", "--engine", "int8"]) == 2
    assert "digits holds no model-int8.safetensors: make one with trevsnn export" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["eager", "folded", "onnx"])
def test_predict_gives_the_same_with_every_engine(exported, tmp_path, capsys, engine):
    picture = tmp_path / "digit.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(picture)
    assert main(["predict", str(exported), str(picture), "--engine", engine, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    model, *_ = load_run(exported, "last")
    assert main(["predict", str(exported), str(picture), "--json"]) == 0
    (wanted,) = json.loads(capsys.readouterr().out)
    assert row["class"] == wanted["class"]
    assert row["probability"] == pytest.approx(wanted["probability"], rel=1e-5)
    assert model.num_classes == len(row["probabilities"])


def damaged(exported, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    return folder


@pytest.mark.parametrize(
    ("engine", "name", "write"),
    [
        ("onnx", "model.onnx", export_float32),
        ("onnx-int8", "model-int8.onnx", export_integer),
        ("spikes", "model-int8.onnx", export_integer),
    ],
)
def test_an_onnx_file_of_another_model_is_said(exported, tmp_path, capsys, engine, name, write):
    folder = damaged(exported, tmp_path)
    other = trained_like(in_chans=1).float()
    items = () if write is export_float32 else (torch.randn(2, 1, 8, 8),)
    write(fold(other), *items, folder / name, fingerprint_of(other))
    picture = tmp_path / "digit.png"
    Image.new("L", (8, 8)).save(picture)
    assert main(["predict", str(folder), str(picture), "--engine", engine]) == 1
    assert f"{name} is of another model than the weights and config beside it" in capsys.readouterr().err
    (folder / name).write_bytes(b"no ONNX")
    assert main(["predict", str(folder), str(picture), "--engine", engine]) == 1
    assert f"{name} is missing or no ONNX file" in capsys.readouterr().err
    (folder / name).unlink()
    assert main(["predict", str(folder), str(picture), "--engine", engine]) == 2
    assert f"holds no {name}: make one with trevsnn export" in capsys.readouterr().err


def test_damaged_exports_are_said_in_a_sentence(exported, tmp_path, capsys):
    folder = damaged(exported, tmp_path)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"model\.safetensors is missing or damaged .*: export the model again"):
        load_run(folder, "last")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "width": 3}))
    with pytest.raises(RunError, match="another kind of model: it has width"):
        load_run(folder, "last")
    (folder / "config.json").unlink()
    with pytest.raises(RunError, match=r"holds no config\.json"):
        load_run(folder, "last")
    assert capsys.readouterr().err == ""
    config["channels"] = [9, 9]
    shutil.copy(exported / "model.safetensors", folder)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"holds the weights of another model than config\.json describes"):
        TRevSNN.from_pretrained(folder)
    with pytest.raises(
        RunError, match=r"model\.safetensors is a file: give a folder that save_pretrained or trevsnn export made"
    ):
        TRevSNN.from_pretrained(folder / "model.safetensors")
    (folder / "about.json").write_text("{}")
    with pytest.raises(RunError, match=r"about\.json is damaged"):
        load_run(folder, "last")


@pytest.mark.parametrize("file", ["config.yaml", "about.json"])
def test_files_of_another_export_are_refused(exported, tmp_path, file):
    folder = tmp_path / "mixed"
    shutil.copytree(exported, folder)
    path = folder / file
    if file == "config.yaml":
        path.write_text(path.read_text().replace("encoder_stride: 1", "encoder_stride: 2"))
    else:
        about = json.loads(path.read_text())
        about["about"]["classes"] = about["about"]["classes"][:-1]
        path.write_text(json.dumps(about))
    said = {"config.yaml": "are of different networks", "about.json": "it names 9 classes, and the network has 10"}[
        file
    ]
    with pytest.raises(RunError, match=said):
        load_run(folder, "last")


def test_wrong_usage_of_export(run, exported, capsys, tmp_path):
    assert main(["export", str(run), "--out", str(exported)]) == 2
    assert "exists already: name another folder with --out" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "x")]) == 1
    assert "is no run" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_missing_extra_names_the_line_that_installs_it(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert main(["export", str(run), "--out", str(tmp_path / "x")]) == 2
    assert "onnx is not installed: pip install 'trevsnn[deploy]'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_network_with_all_links_and_no_alphas_goes_all_the_way(tmp_path, capsys):
    """From the command line to every engine."""
    run, out = tmp_path / "run", tmp_path / "exported"
    options = ["--model.channels", "[4,8,8]", "--model.links", "all", "--model.alphas", "one", "--model.timesteps", "2"]
    assert main(["train", *SMALL, *options, "--epochs", "1", "--optim.warmup_epochs", "0", "--run", str(run)]) == 0
    assert main(["export", str(run), "--out", str(out)]) == 0
    model = TRevSNN.from_pretrained(out)
    assert (model.config.links, model.config.alphas) == ("all", "one")
    assert "levels.0.steps.1.further.0.conv.weight" in load_file(out / "model.safetensors")
    card = (out / "README.md").read_text()
    assert "T = 2, with links from all levels above, with every alpha 1, for pictures of 8 x 8" in card
    rows = {row["name"]: row for row in json.loads((out / "about.json").read_text())["comparisons"]}
    for name in ("folded", "onnx", "torch.export"):
        assert rows[name]["same_class"] >= 0.99 * rows[name]["items"]
    accuracy = {}
    for engine in ("eager", "folded", "onnx", "int8", "onnx-int8", "spikes"):
        capsys.readouterr()
        assert main(["evaluate", str(out), "--engine", engine, "--json"]) == 0
        accuracy[engine] = json.loads(capsys.readouterr().out)["accuracy"]
    assert accuracy["folded"] == pytest.approx(accuracy["eager"], abs=0.01)
    assert accuracy["onnx"] == pytest.approx(accuracy["eager"], abs=0.01)
    assert accuracy["spikes"] == accuracy["onnx-int8"] == pytest.approx(accuracy["eager"], abs=0.1)
    assert main(["measure", "energy", str(out), "--count", "4", "--json"]) == 0
    counted = {op["name"]: op for op in json.loads(capsys.readouterr().out)["operations"]}
    link = counted["levels.0.steps.1.further.0"]
    assert link["spiking"]
    assert link["macs"] == 8 * 4 * 4 * 4  # at the top level's size


def test_about_json_of_another_network_with_as_many_classes_is_refused(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "mixed")
    about = json.loads((folder / "about.json").read_text())
    assert len(about["weights_sha256"]) == 64
    (folder / "about.json").write_text(json.dumps(about | {"weights_sha256": "0" * 64}))
    with pytest.raises(RunError, match=r"config\.json, config\.yaml and about\.json are of different networks"):
        load_run(folder, "last")


@pytest.mark.parametrize("engine", ["onnx", "onnx-int8", "spikes"])
def test_an_onnx_file_names_no_other_files(exported, tmp_path, capsys, engine):
    onnx = pytest.importorskip("onnx")
    folder = shutil.copytree(exported, tmp_path / "sent")
    path = folder / ("model.onnx" if engine == "onnx" else "model-int8.onnx")
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda constant: len(constant.raw_data))
    assert tensor.raw_data
    (tmp_path / "outside.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside.bin")
    path.write_bytes(model.SerializeToString())
    assert main(["evaluate", str(folder), "--engine", engine]) == 1
    assert "ONNX file (" in capsys.readouterr().err
