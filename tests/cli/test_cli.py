"""Mistakes at the command line: one sentence on stderr, the right exit code, no traceback."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from trevsnn import __version__, create_model
from trevsnn.cli.main import main

TINY = ["--model.channels", "[4,4]", "--model.timesteps", "1", "--epochs", "1", "--batch_size", "256",
        "--optim.warmup_epochs", "0", "--accelerator", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", *TINY, "--run", str(folder)]) == 0
    return folder


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str) -> None:
    capsys.readouterr()
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1, error
    assert error.startswith("trevsnn: error: ")
    assert "Traceback" not in error


USAGE = [
    (["train", "--epochs", "many"], "epochs.*many"),
    (["train", "--epochs", "0"], "epochs is 0; it must be at least 1"),
    (["train", "--epoch", "3"], "epoch"),
    (["train", "--batch_size", "1"], "batch_size is 1; it must be at least 2"),
    (["train", "--batch_size", "5000"], "batch_size is 5000, more than the 1437 training items: lower it"),
    (["train", "--label_smoothing", "2"], "label_smoothing is 2.0; it must lie in 0..1"),
    (["train", "--optim.lr", "fast"], "optim.lr"),
    (["train", "--optim.lr", "-1"], "optim.lr is -1.0"),
    (["train", "--optim.name", "sgdm"], "sgdm"),
    (["train", "--optim.warmup_epochs", "99"], "warm up for fewer, or train longer"),
    (["train", "--optim.clip", "0"], "optim.clip is 0.0; it must be positive"),
    (["train", "--precision", "8"], "precision"),
    (["train", "--loss", "hinge"], "hinge"),
    (["train", "--model.num_classes", "7"], "model.num_classes is 7, but digits has 10: set it to 10"),
    (["train", "--model.in_chans", "3"], "model.in_chans is 3, but digits are grey: set it to 1"),
    (["train", "--model.input", "event"], "digits are pictures: set model.input to image"),
    (["train", "--model.kernel_size", "2"], "kernel_size is 2; it must be odd"),
    (["train", "--model.channels", "[8]"], "two levels at least"),
    (["train", "--model.chanels", "[8,8]"], "chanels"),
    (["train", "--model.backprop", "magic"], "magic"),
    (["train", "--data.name", "mnist3d"], "mnist3d"),
    (["train", "--data.erasing", "1.5"], "data.erasing is 1.5; it must lie in 0..1"),
    (["train", "--recipe", "cifar1000"], "there is no recipe 'cifar1000'; there are cifar-10, cifar10-dvs"),
    (["train", "--recipe"], "there is no recipe ''"),
    (["train", "--config", "missing.yaml"], "missing.yaml"),
    (["train", "--resume", "RUN", "--seed", "9"], "goes on with the run's own config.*leave out --seed"),
    (["train", "--run", "RUN"], "exists already: go on with trevsnn train --resume"),
    (["evaluate"], "run"),
    (["evaluate", "RUN", "--split", "test"], "digits has no part 'test'; it has train, val"),
    (["evaluate", "RUN", "--weights", "median"], "median"),
    (["predict", "RUN"], "files"),
    (["fly"], "fly"),
    ([], "command"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE)
def test_wrong_usage_exits_with_2(run, capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    arguments = [str(run) if a == "RUN" else a for a in arguments]
    fails(capsys, arguments, 2, message)
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").rglob("step-*"))


def test_an_accelerator_the_machine_lacks_exits_with_2(run, capsys):
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    fails(capsys, ["evaluate", str(run), "--accelerator", "mps"], 2, "accelerator 'mps' cannot be used here")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: [1", "config"),
        (
            "model: {timestep: 3, num_classes: 10, in_chans: 1}",
            "there is no option model.timestep: did you mean model.t",
        ),
        (
            "batchsize: 3\nmodel: {num_classes: 10, in_chans: 1}",
            "there is no option batchsize: did you mean batch_size",
        ),
        (
            "model: {channels: many, num_classes: 10, in_chans: 1}",
            "model.channels is 'many'; it must be a list of whole",
        ),
        ("- 1\n- 2\n", "config"),
    ],
)
def test_a_bad_config_file_exits_with_2(capsys, tmp_path, content, message):
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    fails(capsys, ["train", "--config", str(file), "--run", str(tmp_path / "run")], 2, message)


def without_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def truncated_weights(run: Path) -> None:
    file = next((run / "checkpoints").glob("step-*")) / "ema.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def other_model(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["channels"] = [4, 5]
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def bad_config(run: Path) -> None:
    (run / "config.yaml").write_text("epochs: x")


def no_config(run: Path) -> None:
    (run / "config.yaml").unlink()


def network_alone(run: Path) -> None:
    no_config(run)
    create_model("trevsnn_digits").save_pretrained(run)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_checkpoints, "holds no last checkpoint yet: train it further with"),
        (truncated_weights, "is damaged .ema.safetensors is not what was written.: remove it"),
        (other_model, "weights of another model than its run's config describes: size mismatch"),
        (bad_config, "config.yaml is damaged"),
        (no_config, "is no run: it holds no config.yaml"),
        (
            network_alone,
            "it holds no config.yaml, only a network without classes and data, from which trevsnn train --init begins",
        ),
    ],
)
def test_a_damaged_run_exits_with_1(run, capsys, tmp_path, damage, message):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    damage(copy)
    fails(capsys, ["evaluate", str(copy)], 1, message)


def test_failures_outside_exit_with_1(run, capsys, tmp_path):
    fails(capsys, ["evaluate", str(tmp_path / "nowhere")], 1, "nowhere is no run")
    fails(capsys, ["train", "--resume", str(tmp_path / "nowhere")], 1, "nowhere is no run")
    fails(capsys, ["predict", str(run), str(tmp_path / "no.png")], 1, "no.png does not exist")
    noise = tmp_path / "noise.png"
    noise.write_bytes(b"not a picture")
    fails(capsys, ["predict", str(run), str(noise)], 1, "noise.png cannot be read as a picture")
    noise.rename(tmp_path / ".hidden.png")
    fails(
        capsys, ["predict", str(run), str(tmp_path)], 1, f"the folder {tmp_path} holds no pictures: of files, it takes"
    )
    (tmp_path / "file").write_text("")
    fails(capsys, ["train", *TINY, "--run", str(tmp_path / "file" / "run")], 1, "cannot be written .Not a directory.")


def test_debug_shows_the_traceback(capsys, tmp_path):
    assert main(["evaluate", str(tmp_path), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_help_and_version(capsys):
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert main(["train", "--help"]) == 0
    assert "--optim.lr" in capsys.readouterr().out


def test_runs_without_a_name_stand_side_by_side(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["train", *TINY]) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["digits", "digits-2"]


def test_the_installed_command(run):
    """The console script, in processes of its own."""
    script = Path(sys.executable).parent / "trevsnn"
    done = subprocess.run([script, "evaluate", str(run), "--json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["accuracy"] == json.loads((run / "summary.json").read_text())["last_accuracy"]
    wrong = subprocess.run([script, "train", "--epochs", "x"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("trevsnn: error: ")
