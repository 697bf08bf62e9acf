"""Runs and exports that earlier versions wrote still load, compute the same, and go on.

``tests/earlier/VERSION`` holds a run on digits, interrupted after the first of three epochs, its export, and what that
version computed from them: logits of the first eight held-out pictures, and accuracy and loss on all of them.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from helpers import metrics
from processes import start
from trevsnn.cli.main import main
from trevsnn.data.loading import real_items
from trevsnn.deploy.engines import make_engine
from trevsnn.deploy.inference import evaluate_run
from trevsnn.run.load import load_run

VERSIONS = sorted((Path(__file__).parents[1] / "earlier").iterdir())
NEEDED = {"onnx": "onnxruntime", "onnx-int8": "onnxruntime", "spikes": "onnx"}


def cases(what: str) -> list[tuple[Path, str]]:
    """Versions, with the weights and the engine of each figure: "run best folded"."""
    return [(version, case) for version in VERSIONS for case in expected(version)[what]]


def expected(version: Path) -> dict:
    return json.loads((version / "expected.json").read_text())


def test_versions_are_there():
    assert [version.name for version in VERSIONS] == ["v0.1.0"]
    assert len(cases("logits")) == len(cases("evaluations")) == 10


SLOW = "ignore:.*the spike-driven engine is dense and slow:UserWarning"  # it says so of files without roles


@pytest.mark.filterwarnings(SLOW)
@pytest.mark.parametrize(("version", "case"), cases("logits"), ids=str)
def test_logits_are_those_of_then(version, case):
    kind, weights, engine = case.split()
    if engine in NEEDED:
        pytest.importorskip(NEEDED[engine])
    model, config, about, _ = load_run(version / kind, weights)
    assert about.classes == tuple("0123456789")
    with torch.no_grad():
        logits = make_engine(engine, model, version / kind)(real_items(config.data, config.model.timesteps, 8))
    torch.testing.assert_close(logits, torch.tensor(expected(version)["logits"][case]), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings(SLOW)
@pytest.mark.parametrize(("version", "case"), cases("evaluations"), ids=str)
def test_evaluations_are_those_of_then(version, case):
    kind, weights, engine = case.split()
    if engine in NEEDED:
        pytest.importorskip(NEEDED[engine])
    result = evaluate_run(version / kind, None, weights, "cpu", engine)
    then = expected(version)["evaluations"][case]
    assert (result["checkpoint"], result["items"]) == (then["checkpoint"], then["items"])
    assert result["accuracy"] == pytest.approx(then["accuracy"], abs=1 / then["items"])
    assert result["loss"] == pytest.approx(then["loss"], rel=1e-4)


def test_8_bit_files_of_0_1_0_are_said_to_be_slow():
    pytest.importorskip("onnx")
    export = VERSIONS[0] / "export"
    with pytest.warns(
        UserWarning, match=r"as files of version 0\.1\.0 do not: .* dense and slow, .* export the model again"
    ):
        make_engine("spikes", load_run(export, "last").model, export)


def test_the_command_line_says_so_in_a_sentence(tmp_path):
    """Not as Python prints warnings, with a line of code."""
    pytest.importorskip("onnx")
    process = start(["evaluate", str(VERSIONS[0] / "export"), "--engine", "spikes", "--json"], tmp_path / "output")
    process.join()
    printed = (tmp_path / "output").read_text()
    assert process.exitcode == 0, printed
    (figures,) = [line for line in printed.splitlines() if line.startswith("{")]
    assert json.loads(figures)["items"] == 360
    (said,) = [line for line in printed.splitlines() if "0.1.0" in line and line != figures]
    assert said.startswith("trevsnn: warning: ")
    assert "UserWarning" not in printed


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_a_run_goes_on_to_its_end(version, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(version / "run", run)
    assert main(["train", "--resume", str(run)]) == 0
    rows, then = metrics(run), metrics(version / "run")
    assert [{name: row[name] for name in then[0]} for row in rows[: len(then)]] == then
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "44"), ("2", "88"), ("3", "132")]
    assert [float(row["train_loss"]) for row in rows] == sorted(
        (float(row["train_loss"]) for row in rows), reverse=True
    )
    assert json.loads((run / "summary.json").read_text())["last_accuracy"] == float(rows[-1]["val_accuracy"])
