"""What answers at once loads nothing that takes seconds to load."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trevsnn

HEAVY = [
    "torch",
    "numpy",
    "timm",
    "torchvision",
    "matplotlib",
    "tensorboard",
    "lightning_fabric",
    "sklearn",
    "onnx",
    "PIL",
]
PROGRAM = f"""
import contextlib, io, json, sys
from trevsnn.cli.main import main
answers = []
for arguments in json.loads(sys.argv[1]):
    known, output = set(sys.modules), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = main(arguments)
    answers.append([code, [name for name in {HEAVY} if name in sys.modules and (name not in known or not answers)], output.getvalue()])
print(json.dumps(answers))
"""

AT_ONCE = [
    (["--version"], 0, f"trevsnn {trevsnn.__version__}"),
    (["--help"], 0, "measure"),
    (["train", "--help"], 0, "--optim.lr"),
    (["evaluate", "--help"], 0, "--engine {eager,folded,onnx,int8,onnx-int8,spikes}"),
    (["predict", "--help"], 0, "files"),
    (["export", "--help"], 0, "--formats"),
    (["stream", "--help"], 0, "recording"),
    (["measure", "--help"], 0, "energy"),
    (["measure", "memory", "--help"], 0, "--slice_bytes"),
    (["measure", "speed", "--help"], 0, "--level_rates"),
    (["measure", "energy", "--help"], 0, "--pj_per_synop"),
    (["data", "--help"], 0, "prepare"),
    (["data", "prepare", "--help"], 0, "--no_hashes"),
    (["data", "check", "--help"], 0, "--workers"),
    (["data", "show", "--help"], 0, "--window_ms"),
    (["data", "list", "--help"], 0, "--split"),
    (["train", "--recipe", "n-mnist", "--epochs", "7", "--print_config"], 0, "epochs: 7"),
    (["train", "--print_config"], 0, "name: digits"),
    (["train", "--epoch", "3"], 2, "there is no option --epoch: did you mean --epochs?"),
    (
        ["train", "--precision", "bf16", "--data.nam", "x", "--optim.lr", "-1"],
        2,
        "error: 3 mistakes:\n  precision is 'bf16'",
    ),
    (["train", "--model.num_classes", "7"], 2, "digits has 10: set it to 10"),
    (["train", "--config", "missing.yaml", "--epochs", "x"], 2, "error: 2 mistakes:"),
    (["train", "--epochs", "many"], 2, "many"),
    (["train", "--epochs", "0"], 2, "epochs is 0; it must be at least 1"),
    (["train", "--model.kernel_size", "2"], 2, "kernel_size is 2; it must be odd"),
    (["train", "--data.erasing", "1.5"], 2, "data.erasing is 1.5"),
    (["train", "--recipe", "cifar1000"], 2, "there is no recipe 'cifar1000'"),
    (["train", "--config", "missing.yaml"], 2, "missing.yaml"),
    (["train", "--config"], 2, "--config names no file"),
    (["train", "--resume", "RUN", "--epochs", "9", "--model.timesteps=2"], 2, "leave out --model.timesteps."),
    (["train", "--resume", "RUN", "--recipe", "digits"], 2, "leave out --recipe."),
    (["train", "--recipe", "digits", "--resume", "RUN", "--run", "X"], 2, "leave out --recipe, --run."),
    (["evaluate", "RUN", "--engine", "magic"], 2, "magic"),
    (["export", "RUN", "--formats", "onnx", "tflite"], 2, "tflite"),
    (["predict", "RUN"], 2, "files"),
    (["predict", "RUN", "x.png", "--top", "0"], 2, "error: --top must be a number >0."),
    (["measure", "memory", "--timesteps", "4", "0"], 2, "timesteps"),
    (["measure", "speed", "--rates", "1"], 2, "rates"),
    (["measure", "speed", "--picture", "x.png"], 2, "--picture goes with --inference"),
    (["measure", "energy"], 2, "run"),
    (["data", "prepare", "mnist"], 2, "mnist"),
    (["data", "prepare", "imagenet"], 2, "archives"),
    (["data", "show", "x.bin", "--sensor", "34"], 2, "sensor"),
    (["data", "list", "x", "--split", "valid"], 2, "valid"),
    (["measure"], 2, "memory,speed,energy"),
    ([], 2, "command"),
]


@pytest.fixture(scope="module")
def answers() -> list[tuple[int, list[str], str]]:
    """Exit code, heavy modules that it loads and output of each call, one after the other in a process of their own."""
    arguments = json.dumps([arguments for arguments, _, _ in AT_ONCE])
    done = subprocess.run([sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, check=True)
    return [(code, heavy, output) for code, heavy, output in json.loads(done.stdout)]


@pytest.mark.parametrize("number", range(len(AT_ONCE)), ids=lambda number: " ".join(AT_ONCE[number][0]) or "nothing")
def test_help_and_errors_of_usage_load_nothing_heavy(answers, number):
    _, code, text = AT_ONCE[number]
    assert answers[number][:2] == (code, [])
    assert text in answers[number][2]


def test_ctrl_c_while_a_command_loads_is_a_sentence(tmp_path):
    (tmp_path / "jsonargparse.py").write_text("raise KeyboardInterrupt")  # as if it came while this is imported
    paths = os.pathsep.join([str(tmp_path), str(Path(trevsnn.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "trevsnn", "--version"],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, b"trevsnn: interrupted\n")
