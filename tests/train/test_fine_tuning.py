"""Trainings that begin with trained weights."""

import json
import shutil

import pytest
import torch

import trevsnn
from helpers import assert_same, folder_of_pictures, metrics, train
from trevsnn.cli.main import main
from trevsnn.run.checkpoint import checkpoints, load_checkpoint
from trevsnn.run.config import OptimConfig, RunConfig
from trevsnn.train.optim import build_optimizer, build_scheduler

DIGITS = [
    "train",
    "--accelerator",
    "cpu",
    "--model.timesteps",
    "2",
    "--batch_size",
    "128",
    "--optim.warmup_epochs",
    "0",
    "--init",
    "digits",
]


def weights(run):
    return load_checkpoint(checkpoints(run / "checkpoints", "step")[0])[0]["model"]


def test_frozen_levels_stay_bit_for_bit_and_the_heads_learn(tmp_path, capsys):
    run = tmp_path / "run"
    assert main([*DIGITS, "--freeze", "2", "--epochs", "1", "--run", str(run)]) == 0
    said = capsys.readouterr().out
    assert "begins with the weights of digits; with its heads, as the classes are the same" in said
    assert "backprop exact, encoder and 2 levels frozen" in said
    trained, now = trevsnn.create_model("trevsnn_digits", pretrained=True).state_dict(), weights(run)
    for name, value in now.items():
        if name.startswith(("encoder.", "levels.0.", "levels.1.")):
            assert torch.equal(value, trained[name]), name
    changed = {name for name, value in now.items() if not torch.equal(value, trained[name])}
    assert {"heads.3.classifier1.weight", "levels.2.steps.0.gamma", "levels.2.steps.1.below.bn.running_mean"} <= changed


def test_with_everything_frozen_and_no_learning_rate_the_trained_accuracy_is_there(tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--freeze", "3", "--epochs", "1", "--optim.lr", "0", "--optim.warmup_lr", "0", "--optim.min_lr", "0"]
    options += [
        "--optim.warmup_epochs",
        "0",
        "--optim.weight_decay",
        "0",
        "--optim.name",
        "adamw",
        "--ema_decay",
        "null",
    ]
    assert main([*DIGITS, *options, "--run", str(run)]) == 0
    capsys.readouterr()
    assert main(["evaluate", "digits", "--json"]) == 0
    assert float(metrics(run)[0]["val_accuracy"]) == json.loads(capsys.readouterr().out)["accuracy"]


def test_a_run_goes_on_though_what_it_began_with_is_gone(finished, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(finished, source)
    options = ["--init", str(source), "--epochs", "1", "--optim.warmup_epochs", "0"]
    train(*options, "--run", str(tmp_path / "whole"))
    train(*options, "--run", str(tmp_path / "cut"))
    shutil.rmtree(source)
    (tmp_path / "cut" / "summary.json").unlink()
    for late in checkpoints(tmp_path / "cut" / "checkpoints", "step"):
        if late.name != "step-000000000":
            shutil.rmtree(late)
    assert [c.name for c in checkpoints(tmp_path / "cut" / "checkpoints", "step")] == ["step-000000000"]
    assert main(["train", "--resume", str(tmp_path / "cut")]) == 0
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_pictures_of_other_classes_and_channels(tmp_path, capsys):
    folder_of_pictures(tmp_path / "data", ("train", "val"), n=8)
    options = [
        "--data.name",
        "folder",
        "--data.root",
        str(tmp_path / "data"),
        "--model.num_classes",
        "2",
        "--model.in_chans",
        "3",
    ]
    options += ["--batch_size", "4", "--epochs", "1"]
    assert main([*DIGITS, *options, "--run", str(tmp_path / "run")]) == 0
    assert "the heads are new, for 2 classes; the first convolution is adapted to 3 channels" in capsys.readouterr().out
    now, trained = weights(tmp_path / "run"), trevsnn.create_model("trevsnn_digits", pretrained=True).state_dict()
    assert now["encoder.stem.conv.weight"].shape[1] == 3
    shared = "levels.2.shared.pw2.weight"
    assert 0 < (now[shared] - trained[shared]).norm() < 0.3 * trained[shared].norm()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--freeze", "2"], "freeze is 2, but without init these levels would stay as they began by chance"),
        (["--init", "digits", "--freeze", "4"], "freeze is 4, but the network has 3 levels"),
        (["--init", "digits", "--start", "published"], "init brings weights, and start 'published' is of new ones"),
        (["--init", "nowhere"], "init is 'nowhere', which is none of"),
        (["--init", "digits", "--model.channels", "[24,64]"], "the network has channels (24, 64) instead of (24, 64, 96)"),
        (["--optim.layer_decay", "0"], "optim.layer_decay is 0"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_said(tmp_path, capsys, options, said):
    assert main(["train", *options, "--accelerator", "cpu", "--run", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "muon"])
def test_learning_rates_decay_from_the_heads_to_the_encoder(optimizer):
    model = trevsnn.TRevSNN(trevsnn.TRevSNNConfig(channels=(4, 8, 8), timesteps=2, num_classes=5))
    config = RunConfig(
        optim=OptimConfig(name=optimizer, lr=0.1, weight_decay=0.01, layer_decay=0.5, warmup_epochs=0), epochs=2
    )
    built = build_optimizer(model, config)
    build_scheduler(built, config, 10).step_update(0)
    rates = {id(p): group["lr"] for group in built.param_groups for p in group["params"]}
    expected = {"encoder.": 0.1 / 16, "levels.0.": 0.1 / 8, "levels.1.": 0.1 / 4, "levels.2.": 0.1 / 2, "heads.": 0.1}
    for name, parameter in model.named_parameters():
        (rate,) = (rate for start, rate in expected.items() if name.startswith(start))
        assert rates[id(parameter)] == pytest.approx(rate), name
