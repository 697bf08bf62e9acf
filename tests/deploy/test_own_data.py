"""A trained network with data and sizes of a user's own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from event_files import some_events, write_nmnist
from helpers import folder_of_pictures, trained_like
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.files import read_inputs
from trevsnn.data.loading import real_items
from trevsnn.data.matched import Matched, evaluated_splits, load_matched
from trevsnn.data.overrides import DataOverrides
from trevsnn.data.part import About
from trevsnn.data.sets import load
from trevsnn.deploy.folded import fold
from trevsnn.deploy.inference import Predictor, evaluate_run
from trevsnn.deploy.int8.engine import SpikeDriven
from trevsnn.deploy.onnx.int8 import export_integer
from trevsnn.deploy.onnx.model import OnnxModel
from trevsnn.errors import RunError, UsageError
from trevsnn.measure.energy import measure_energy
from trevsnn.run.load import load_run


def digits_folder(root, names="0123456789", part="test", most=60):
    """Scans of the digits' held-out part as colour pictures, in class folders."""
    digits = load(DataConfig(), "val", 1)
    for index in range(most):
        folder = root / part / names[digits.labels_N[index]]
        folder.mkdir(parents=True, exist_ok=True)
        digits.read(index).convert("RGB").save(folder / f"{index:03}.png")
    return digits


def test_a_shipped_network_is_evaluated_on_a_folder_of_its_classes(tmp_path, capsys):
    """Without a train folder, in colour, and normalised as the network's own data, not as ImageNet."""
    digits_folder(tmp_path / "own")
    options = ["--data.name", "folder", "--data.root", str(tmp_path / "own")]
    assert main(["evaluate", "digits", *options, "--accelerator", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model, _, about, _ = load_run(Path("digits"), "last")
    files = sorted((tmp_path / "own").rglob("*.png"))
    with torch.no_grad():
        given = model(read_inputs(files, DataConfig(), about, 2)).argmax(1)
    right = [about.classes[int(label)] == file.parent.name for label, file in zip(given, files, strict=True)]
    assert (found["items"], found["split"]) == (60, "test")
    assert found["accuracy"] == pytest.approx(sum(right) / 60)
    assert found["accuracy"] > 0.9


def test_classes_are_matched_by_name(tmp_path):
    folder_of_pictures(tmp_path, ("train", "val"), n=3)
    config = DataConfig(name="folder", root=str(tmp_path))
    own = load(config, "val", 1)
    about = About(("dog", "cat"), 3, own.mean, own.std)
    matched = load_matched(config, "val", 1, about)
    assert [about.classes[i] for i in matched.labels_N] == [own.classes[i] for i in own.labels_N]
    assert (matched.classes, matched.digest(), matched.name(1)) == (("dog", "cat"), own.digest(), own.name(1))
    grey = Matched(own, About(("cat", "dog"), 1, (0.5,), (0.5,)))
    assert grey.read(0).tobytes() == grey.open(0).tobytes() == own.read(0).convert("L").tobytes()
    wanted = About(("cat", "cow", "hen"), 3, own.mean, own.std)
    with pytest.raises(
        RunError, match=r"they lack cow, hen and have dog, which it does not know; name the class folders"
    ):
        real_items(config, 1, 4, wanted)


def test_a_folder_without_train_is_enough_for_a_trained_network(tmp_path):
    folder_of_pictures(tmp_path, ("val", "test"), n=3)
    config = DataConfig(name="folder", root=str(tmp_path))
    assert evaluated_splits(config) == ["val", "test"]
    assert len(load_matched(config, "val", 1, About(("cat", "dog"), 3, (0.5,) * 3, (0.5,) * 3))) == 6
    with pytest.raises(RunError, match="holds test and val, but no train: it needs train/CLASS"):
        load(config, "val", 1)


def test_all_commands_take_another_size(wide_run, wide_export, tmp_path, capsys):
    picture = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)).save(picture)
    model, config, about, _ = load_run(wide_run, "last")
    size = DataOverrides(image_size=(13, 21))
    (row,) = Predictor(wide_run, "last", "cpu", data=size).predict([picture])
    with torch.no_grad():
        x = read_inputs([picture], size.over(config.data), about, 2)
        expected = model(x).double().softmax(1)[0]
    assert x.shape == (1, 3, 13, 21)
    assert [row.classes[name] for name in about.classes] == pytest.approx(expected.tolist(), abs=1e-6)
    options = ["--data.image_size", "13", "21"]
    assert main(["predict", str(wide_export), str(picture), "--engine", "onnx", *options, "--json"]) == 0
    (served,) = json.loads(capsys.readouterr().out)
    assert served["probability"] == pytest.approx(max(row.classes.values()), abs=1e-5)
    for engine in ("onnx-int8", "spikes"):
        for command in (["predict", str(wide_export), str(picture)], ["evaluate", str(wide_export)]):
            assert main([*command, "--engine", engine, *options]) == 2
            text = f"the file of the engine {engine} takes 9 x 14 pixels alone, not 13 x 21: export it for that size"
            assert text in capsys.readouterr().err
    macs = [measure_energy(wide_run, "last", 2, data=data)["macs"] for data in (DataOverrides(), size)]
    assert macs[1] > 1.5 * macs[0]
    found = [evaluate_run(wide_run, None, "last", "cpu", data=data)["loss"] for data in (DataOverrides(), size)]
    assert found[0] != found[1]


def test_an_export_for_another_size_says_where_its_figures_are_from(wide_run, tmp_path, capsys):
    out = tmp_path / "e"
    options = ["--formats", "onnx-int8", "--data.image_size", "12"]
    assert main(["export", str(wide_run), "--out", str(out), *options]) == 0
    assert load_run(out, "last").config.data.image_size == 12
    card = (out / "README.md").read_text()
    assert "for pictures of 12 x 12, 2 classes" in card
    assert "It was trained at 9 x 14 (height x width), and these figures are of that size; at 12 x 12" in card
    assert OnnxModel(out / "model-int8.onnx").shape == [3, 12, 12]
    again = tmp_path / "again"
    assert main(["export", str(out), "--out", str(again), "--formats"]) == 0
    assert "It was trained at 9 x 14" in (again / "README.md").read_text()


def test_without_its_data_a_network_is_exported_and_no_figure_looks_real(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("trevsnn.data.listing.CACHE", tmp_path / "nothing")
    with pytest.warns(
        UserWarning, match="the data of n-mnist are not there, so the forms are compared on 64 made-up inputs"
    ):
        assert main(["export", "n-mnist", "--out", str(tmp_path / "e"), "--formats", "int8"]) == 0
    printed = capsys.readouterr()
    assert "Compared on 64 made-up inputs of random numbers, no recordings." in printed.out
    report = json.loads((tmp_path / "e" / "about.json").read_text())
    assert (report["real_items"], report["comparisons"][0]["items"]) == (False, 64)
    card = (tmp_path / "e" / "README.md").read_text()
    assert "on 64 made-up inputs of random numbers, no recordings. The data were not at hand" in card
    assert "not trained on" not in card
    assert main(["export", "n-mnist", "--out", str(tmp_path / "f"), "--formats", "onnx-int8"]) == 2
    assert (
        "onnx-int8 needs recordings to calibrate on, and the data of n-mnist are not there" in capsys.readouterr().err
    )
    assert main(["export", "n-mnist", "--out", str(tmp_path / "f"), "--data.root", str(tmp_path / "gone")]) == 1
    assert "gone is no folder: set data.root" in capsys.readouterr().err
    assert not (tmp_path / "f").exists()


def test_without_its_data_everything_but_8_bit_arithmetic_is_exported(wide_run, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(wide_run, run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(wide_run.parent / "data"), str(tmp_path / "moved")))
    with pytest.warns(UserWarning, match=r"model-int8\.onnx, which needs pictures to calibrate on, is left out"):
        assert main(["export", str(run), "--out", str(tmp_path / "e")]) == 0
    names = {file.name for file in (tmp_path / "e").iterdir()}
    assert {"model.onnx", "model.pt2", "model-int8.safetensors"} < names
    assert "model-int8.onnx" not in names
    assert main(["measure", "energy", str(run)]) == 1
    assert "moved is no folder: set data.root" in capsys.readouterr().err
    options = ["--data.root", str(wide_run.parent / "data"), "--formats", "onnx-int8"]
    assert main(["export", str(run), "--out", str(tmp_path / "f"), *options]) == 0
    assert "on pictures of the part val of data named at its export" in (tmp_path / "f" / "README.md").read_text()


def test_files_to_predict_count_from_the_root(wide_run, capsys):
    root = wide_run.with_name("data") / "val"
    found = []
    for names in (["cat/003.png", "dog/001.png"], [str(root / "cat" / "003.png"), "dog/001.png"], ["."]):
        assert main(["predict", str(wide_run), *names, "--data.root", str(root), "--json"]) == 0
        found.append({row["file"]: row["class"] for row in json.loads(capsys.readouterr().out)})
    assert found[0] == found[1]
    assert list(found[0]) == [str(root / name) for name in ("cat/003.png", "dog/001.png")]
    assert len(found[2]) == 40
    assert found[0].items() <= found[2].items()


def test_a_table_of_seconds_and_signs_is_predicted_and_evaluated_as_the_recording_that_it_is(tmp_path, capsys):
    events = some_events(3000)
    write_nmnist(tmp_path / "a.bin", events)
    columns = {"t": events["t"] / 1e6, "x": events["x"], "y": events["y"], "p": events["p"].astype(np.int8) * 2 - 1}
    for folder in (tmp_path / "own" / part / str(digit) for part in ("train", "test") for digit in range(10)):
        folder.mkdir(parents=True)
        np.savez(folder / "a.npz", **columns)
    stated = ["--data.time_unit", "s", "--data.polarity", "signed", "--accelerator", "cpu", "--json"]
    (wanted,) = Predictor(Path("n-mnist"), "last", "cpu").predict([tmp_path / "a.bin"])
    assert main(["predict", "n-mnist", str(tmp_path / "own/test/4/a.npz"), *stated]) == 0
    assert json.loads(capsys.readouterr().out)[0]["probabilities"] == wanted.classes
    own = ["--data.root", str(tmp_path / "own"), "--data.cache", str(tmp_path / "cache")]
    assert main(["evaluate", "n-mnist", *own, *stated]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["items"], found["split"], found["accuracy"]) == (10, "test", pytest.approx(0.1))
    assert main(["predict", "digits", str(tmp_path / "a.bin"), *stated]) == 2
    assert "data.time_unit is for recordings, but digits are pictures" in capsys.readouterr().err


def test_what_cannot_be_overridden_is_refused(wide_run):
    with pytest.raises(
        UsageError, match=r"data\.name folder is of pictures, but the network was trained on recordings"
    ):
        DataOverrides(name="folder").over(DataConfig(name="n-mnist"))
    with pytest.raises(UsageError, match=r"data\.image_size is 0; it must be at least 1"):
        DataOverrides(image_size=0).over(DataConfig())
    with pytest.raises(UsageError, match=r"predict takes the files it is given, one by one: leave out data\.name"):
        Predictor(wide_run, "last", "cpu", data=DataOverrides(name="shards"))
    assert DataOverrides(name="folder").over(DataConfig(name="cifar-10", root="x")).root is None
    assert DataOverrides(image_size=9).over(DataConfig(name="cifar-10", root="x")).root == "x"


@torch.no_grad()
def test_8_bit_arithmetic_is_the_same_in_both_engines_at_an_odd_size(tmp_path):
    folded, x = fold(trained_like().float()), torch.randn(4, 3, 11, 18)
    export_integer(folded, x, tmp_path / "model.onnx", properties={"size": "[11, 18]"})
    served = OnnxModel(tmp_path / "model.onnx")
    assert served.session.get_modelmeta().custom_metadata_map == {"size": "[11, 18]"}
    torch.testing.assert_close(SpikeDriven(tmp_path / "model.onnx")(x), served(x), rtol=1e-5, atol=1e-5)
